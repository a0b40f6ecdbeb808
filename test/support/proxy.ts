import { type ChildProcess, spawn } from 'node:child_process'
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { ExecutionContext, TestFn } from 'ava'

export { freePort } from './ports.ts'

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname

/** Whoever ends what was begun: a test, or all tests of a file. */
export type Teardowns = Pick<ExecutionContext, 'teardown'>

/** For what is started once and used by every test of a file. */
export function forWholeFile(test: TestFn): Teardowns {
  const ends: (() => unknown)[] = []
  test.after.always(async () => {
    for (const end of ends.reverse()) await end()
  })
  return { teardown: (end) => void ends.push(end) }
}

/** A folder of its own, removed after the test. */
export function folderFor(t: Teardowns): string {
  const dir = mkdtempSync(join(tmpdir(), 'brokergate-test-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

export function write(dir: string, name: string, text: string): string {
  const file = join(dir, name)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

/** A registry file whose policy `devices` allows everything. */
export const OPEN_POLICIES = `policies:
  devices: { Version: "2012-10-17", Statement: [ { Effect: Allow, Action: "iot:*", Resource: "*" } ] }
`

export interface RunningProxy {
  readonly child: ChildProcess
  /** All that it has printed; JSON lines when the configuration says `format: json`. */
  output(): string
  /** Log lines that are JSON. */
  lines(): Record<string, unknown>[]
  /** The value of one metric, labels as written; 0 when the series does not exist. */
  metric(series: string): Promise<number>
  metrics(): Promise<string>
  /** Resolves once `look` finds what it wants in the output; rejects after thirty seconds with the output. */
  until<T>(look: () => T | null | undefined | false | Promise<T | null | undefined | false>, what: string): Promise<T>
  stop(signal?: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null }>
}

/**
 * Starts the real program on this runtime with a configuration file and waits until it says that it is ready.
 * `TRANSPORT=portable` in the environment runs the tests on that transport, where the file names none.
 */
export async function startProxy(
  t: Teardowns,
  file: string,
  metricsPort: number,
  options: { cwd?: string; prefix?: string[] } = {},
): Promise<RunningProxy> {
  const transport = process.env.TRANSPORT
  if (transport !== undefined && file !== '' && !/^transport:/m.test(readFileSync(file, 'utf8'))) {
    appendFileSync(file, `\ntransport: ${transport}\n`)
  }
  const command = [...(options.prefix ?? []), process.execPath, MAIN, 'run', ...(file === '' ? [] : ['-c', file])]
  const child = spawn(command[0]!, command.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: options.cwd ?? tmpdir(),
  })
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }))
  })
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await exited
  })
  const metrics = async () => (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text()
  const proxy: RunningProxy = {
    child,
    output: () => text,
    lines: () =>
      text.split('\n').flatMap((line) => {
        if (!line.startsWith('{')) return []
        try {
          return [JSON.parse(line) as Record<string, unknown>]
        } catch {
          return []
        }
      }),
    metrics,
    async metric(series) {
      const line = (await metrics()).split('\n').find((candidate) => candidate.startsWith(`${series} `))
      return line === undefined ? 0 : Number(line.slice(series.length + 1))
    },
    async until(look, what) {
      const deadline = Date.now() + 30_000
      for (;;) {
        const found = await look()
        if (found !== null && found !== undefined && found !== false) return found
        if (Date.now() > deadline) throw new Error(`${what}: not within 30 s\n${text}`)
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    },
    async stop(signal = 'SIGTERM') {
      child.kill(signal)
      return exited
    },
  }
  await proxy.until(() => {
    if (child.exitCode !== null) throw new Error(`ended with ${child.exitCode}\n${text}`)
    return proxy.lines().some((line) => line.message === 'ready') || text.includes('brokergate is ready')
  }, 'ready')
  return proxy
}
