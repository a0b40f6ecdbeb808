import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { RevocationFiles } from '../../src/registry/revocations.ts'

// A process of its own, so that its memory is that of the lists: probe.ts CA.pem DOMAINS LOOKUPS FILE…

const [caFile, domains, lookups, ...files] = process.argv.slice(2)
const ca = new X509Certificate(readFileSync(caFile!))
const collect: () => void = 'gc' in globalThis && typeof globalThis.gc === 'function' ? globalThis.gc : () => {}

/** What stays: the system keeps freed pages for a while, so a few rounds. */
async function residentBytes(): Promise<number> {
  for (let n = 0; n < 5; n++) {
    collect()
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return process.memoryUsage.rss()
}

const before = await residentBytes()
const begun = performance.now()
const revocations = new RevocationFiles({ log: { info() {}, warn() {}, error() {} }, reloaded() {} })
const sets = Array.from({ length: Number(domains) }, () => {
  const opened = revocations.open(files, [ca])
  if ('issues' in opened) throw new Error(opened.issues.join('\n'))
  return opened
})
const readMs = performance.now() - begun
const after = await residentBytes()

/** A serial number that is (`revoked`) or is not in the list: the generator's are even. */
const serialOf = (n: number) => {
  const serial = Buffer.alloc(16)
  serial[0] = 0x40
  serial.writeUInt32BE(n, 12)
  return serial
}
const count = Number(lookups)
const serials = Array.from({ length: 4_096 }, (_, n) => serialOf((n * 48_271) % 2_000_000))
const { current } = sets[0]!
let revoked = 0
const ask = (times: number) => {
  for (let n = 0; n < times; n++) if (current.statusOf(ca, serials[n % serials.length]!) === 'revoked') revoked++
}
ask(Math.min(count, 20_000))
const start = performance.now()
ask(count)
const lookupUs = ((performance.now() - start) * 1_000) / count

process.stdout.write(
  `${JSON.stringify({ readMs, residentBytes: after - before, lookupUs, revoked, sets: new Set(sets).size })}\n`,
)
