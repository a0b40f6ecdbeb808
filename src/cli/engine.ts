// How the runtime compiles this program. JavaScriptCore is told by the environment alone, before it starts.

/** Of Bun; on Node there is nothing to settle. */
const SETTING = 'BUN_JSC_thresholdForFTLOptimizeAfterWarmUp'
/**
 * What a function must have done before it is compiled by the last and dearest compiler, which counts 15 for a call and 1 for
 * a turn of a loop. Its own mark is 64,000: the whole way of a connection passes that, for a gain that never pays for it.
 * What looks at packets passes this one within seconds of load.
 */
const MARK = '4000000'

type Execve = (file: string, args: readonly string[], env: NodeJS.ProcessEnv) => never

/** The environment to start again in; null: as it is. A mark that somebody has set stays. */
export function settledEngine(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  onBun = process.versions.bun !== undefined,
): NodeJS.ProcessEnv | null {
  const serves = args[0] === undefined || args[0] === 'run' || args[0].startsWith('-')
  return onBun && serves && env[SETTING] === undefined ? { ...env, [SETTING]: MARK } : null
}

/**
 * Starts this program again in its own process, where that makes it faster, and does not return then. Workers take the
 * environment over.
 */
export function settleEngine(): void {
  const env = settledEngine(process.argv.slice(2), process.env)
  // Bun has it, and Node since 23.11.
  const { execve } = process as { execve?: Execve }
  // Whoever forked it would not find the channel again.
  if (env === null || execve === undefined || process.send !== undefined) return
  try {
    execve(process.execPath, [process.argv0, ...process.execArgv, ...process.argv.slice(1)], env)
  } catch {
    // Where no program may be started the engine stays as it comes: slower, and otherwise the same.
  }
}
