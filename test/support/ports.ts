import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** One empty file per port that some process of the tests has. */
const FOLDER = join(tmpdir(), 'brokergate-test-ports')
/** Below those that the system gives to clients (32768 on). */
const FROM = 12_000
const COUNT = 20_000
/** Left by a process that was killed: no test takes a day. */
const STALE_MS = 86_400_000

const mine: string[] = []
process.once('exit', () => {
  for (const file of mine) rmSync(file, { force: true })
})

/**
 * A port on which nobody listens, and that no other caller gets, in this process or beside it, until this one ends: between
 * its choice and its use somebody else would take it now and then, or a configuration name it twice.
 */
export async function freePort(): Promise<number> {
  mkdirSync(FOLDER, { recursive: true, mode: 0o777 })
  for (;;) {
    const port = FROM + Math.floor(Math.random() * COUNT)
    if (reserve(join(FOLDER, String(port))) && (await isFree(port))) return port
  }
}

function reserve(file: string): boolean {
  try {
    writeFileSync(file, '', { flag: 'wx' })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    const made = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()
    if (Date.now() - made > STALE_MS) rmSync(file, { force: true })
    return false
  }
  mine.push(file)
  return true
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host: '::' }, () => server.close(() => resolve(true)))
  })
}
