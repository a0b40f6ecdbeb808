import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The version line of the `openssl` binary; null when there is none, and then tests that need it are skipped. */
export const OPENSSL: string | null = (() => {
  const { status, stdout } = spawnSync('openssl', ['version'], { encoding: 'utf8' })
  return status === 0 ? stdout.trim() : null
})()

/** For `test.skip` titles. */
export const NO_OPENSSL = 'no openssl binary on this machine'

export interface SClientOptions {
  readonly port: number
  readonly args?: readonly string[]
  /** Ends the client once its output matches; otherwise it ends when the server closes. */
  readonly until?: RegExp
  /** Written when the output matches, e.g. a first `R\n` after the handshake. */
  readonly say?: { readonly after: RegExp; readonly text: string }
  readonly deadlineMs?: number
}

export interface SClientResult {
  /** Standard output and error, as they came. */
  readonly output: string
  /** Null when we ended it. */
  readonly code: number | null
}

/** A real TLS client: `openssl s_client` against a port of this machine. Rejects at its deadline with the output. */
export function sClient(options: SClientOptions): Promise<SClientResult> {
  const { port, args = [], until, say, deadlineMs = 10_000 } = options
  return new Promise((resolve, reject) => {
    const child: ChildProcessWithoutNullStreams = spawn('openssl', [
      's_client',
      '-connect',
      `127.0.0.1:${port}`,
      ...args,
    ])
    let output = ''
    let said = false
    let late = false
    const timer = setTimeout(() => {
      late = true
      child.kill('SIGKILL')
    }, deadlineMs)
    const take = (chunk: Buffer) => {
      output += chunk.toString('latin1')
      if (say && !said && say.after.test(output)) {
        said = true
        child.stdin.write(say.text)
      }
      if (until?.test(output)) child.kill('SIGKILL')
    }
    child.stdout.on('data', take)
    child.stderr.on('data', take)
    child.stdin.on('error', () => {})
    child.on('error', reject)
    child.on('close', (code) => {
      clearTimeout(timer)
      if (late) reject(new Error(`openssl s_client did not end within ${deadlineMs} ms:\n${output.slice(-2_000)}`))
      else resolve({ output, code })
    })
  })
}

/** Writes files to a new folder and gives their paths; `remove` takes it all away. */
export function tempFiles(files: Readonly<Record<string, string>>): { paths: Record<string, string>; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'brokergate-test-'))
  const paths: Record<string, string> = {}
  for (const [name, text] of Object.entries(files)) {
    paths[name] = join(folder, name)
    writeFileSync(join(folder, name), text, { mode: 0o600 })
  }
  return { paths, remove: () => rmSync(folder, { recursive: true, force: true }) }
}
