import { spawn } from 'node:child_process'
import { once } from 'node:events'
import test from 'ava'

const LOG = new URL('../../src/control/log.ts', import.meta.url).href
const LAST_WORDS = new URL('../../src/control/last-words.ts', import.meta.url).href

/** A process whose only business is this fault, with its log on standard output. */
async function ended(
  fault: string,
): Promise<{ code: number | null; lines: Record<string, unknown>[]; complaints: string }> {
  const script = `import { createLog } from ${JSON.stringify(LOG)}
    import { endOnFault } from ${JSON.stringify(LAST_WORDS)}
    const log = createLog({ level: 'info', format: 'json' })
    endOnFault(log)
    for (let line = 0; line < 500; line++) log.info({ line }, 'before')
    setInterval(() => {}, 1_000)
    ${fault}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'pipe'] })
  let [text, complaints] = ['', '']
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    complaints += chunk.toString()
  })
  const [code] = (await once(child, 'close')) as [number | null]
  return {
    code,
    lines: text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
    complaints,
  }
}

for (const [kind, fault] of [
  ['uncaughtException', "setTimeout(() => { throw new Error('lost') }, 10)"],
  ['unhandledRejection', "setTimeout(() => { Promise.reject(new Error('lost')) }, 10)"],
  ['unhandledRejection', "setTimeout(() => { Promise.reject('lost'); Promise.reject('again') }, 10)"],
] as const) {
  test(`${fault} ends the process with code 1, one line, and every line before it`, async (t) => {
    const { code, lines, complaints } = await ended(fault)
    t.is(code, 1, complaints)
    t.is(lines.length, 501)
    const last = lines.at(-1)!
    t.like(last, { level: 'error', event: 'fault', message: `ended by a fault of this program: ${kind}` })
    t.is((last.error as { message: string }).message, 'lost')
  })
}
