// How the runtime compiles this program and collects its garbage. JavaScriptCore is told by the environment alone, before it
// starts.

/** Whose settings these are. A Bun that lacks one of them does not start with it, so any other stays as it comes. */
const KNOWN_BUN = '1.4.5'
const SETTINGS = {
  /**
   * What a function must have done before it is compiled by the last and dearest compiler, which counts 15 for a call and 1 for
   * a turn of a loop. Its own mark is 64,000: the whole way of a connection passes that, for a gain that never pays for it.
   * What looks at packets passes this one within seconds of load.
   */
  BUN_JSC_thresholdForFTLOptimizeAfterWarmUp: '4000000',
  /**
   * What may be allocated before garbage is collected, as a part of what lives: 2 of themselves. The garbage of a handshake
   * lies between what stays of its session, and its room with it. The first is asked where the machine has over 16 GB.
   */
  BUN_JSC_heapGrowthMaxIncrease: '0.1',
  BUN_JSC_smallHeapGrowthFactor: '1.1',
  /** Below this part collections look at all that lives: by itself 1/3, which would be all of them. */
  BUN_JSC_minEdenToOldGenerationRatio: '0.025',
  /** Below so many bytes size is no reason to collect: with few sessions what is read would be one, again and again. */
  BUN_JSC_largeHeapSize: '33554432',
  /** Pages between what lives are given back after each collection, not only after those that look at all. */
  BUN_JSC_decommitUnusedMarkedBlockPagesAfterEdenCollections: 'true',
} as const

type Execve = (file: string, args: readonly string[], env: NodeJS.ProcessEnv) => never

/**
 * The environment to start again in; null: as it is. What somebody has set stays.
 * @param bun its version; undefined on Node
 */
export function settledEngine(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  bun: string | undefined,
): NodeJS.ProcessEnv | null {
  const serves = args[0] === undefined || args[0] === 'run' || args[0].startsWith('-')
  const isSettled = Object.keys(SETTINGS).every((name) => env[name] !== undefined)
  return bun === KNOWN_BUN && serves && !isSettled ? { ...SETTINGS, ...env } : null
}

/**
 * Starts this program again in its own process, where that makes it faster, and does not return then. Workers take the
 * environment over.
 */
export function settleEngine(): void {
  const env = settledEngine(process.argv.slice(2), process.env, process.versions.bun)
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
