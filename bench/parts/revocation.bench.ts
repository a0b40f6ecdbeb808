import { spawnSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { join } from 'node:path'
import { createCa, createCrl } from '../../src/cli/pki.ts'
import { revokeOne } from '../../test/support/revoke-one.ts'
import { temporaryFolder } from '../harness/proc.ts'

/**
 * What does revocation cost? Of lists: memory that stays once a list is read and verified, the time to read it, and the time
 * of one question, for lists of several sizes that fifty domains share. Of a registry: how soon one revoked device of a
 * connected fleet is gone, and how long the others wait for an answer meanwhile.
 */
export const question = 'revocation'

const DOMAINS = 50
const PROBE = join(import.meta.dirname, 'revocation-probe.ts')

interface Probed {
  readonly readMs: number
  readonly residentBytes: number
  readonly lookupUs: number
  readonly revoked: number
  readonly sets: number
}

/** Prints a JSON line per size on standard output and a table on standard error. @throws when there is no answer */
export async function run({ smoke }: { readonly smoke: boolean }): Promise<void> {
  const sizes = smoke ? [1_000] : [1_000, 100_000, 1_000_000]
  const lookups = smoke ? 1_000 : 200_000
  const folder = temporaryFolder('brokergate-bench-')
  try {
    const ca = createCa({ commonName: 'bench CA' })
    const caFile = join(folder, 'ca.pem')
    writeFileSync(caFile, ca.certPem)
    print({ question, smoke, cpu: cpus()[0]?.model, kernel: release(), domains: DOMAINS, lookups })
    process.stderr.write(
      '\nRevocation lists, shared by 50 domains\nentries    MB resident  bytes/entry  ms to read  µs a question\n',
    )
    for (const entries of sizes) {
      const file = join(folder, `${entries}.crl`)
      const { der } = createCrl(ca, { revoked: serials(entries) })
      writeFileSync(file, der)
      const probed = probe([caFile, String(DOMAINS), String(lookups), file])
      if (probed.sets !== 1) throw new Error('the domains do not share one set')
      if (probed.revoked === 0) throw new Error('nobody is revoked')
      print({ question, entries, fileBytes: der.length, ...probed })
      const row = [
        String(entries).padEnd(9),
        (probed.residentBytes / 1e6).toFixed(1).padStart(11),
        (probed.residentBytes / entries).toFixed(1).padStart(11),
        probed.readMs.toFixed(0).padStart(10),
        probed.lookupUs.toFixed(2).padStart(13),
      ]
      process.stderr.write(`${row.join('  ')}\n`)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  await oneOfAFleet(smoke ? 100 : 2_000)
}

/** Through the real program, before a Mosquitto, on one worker and on two. */
async function oneOfAFleet(sessions: number): Promise<void> {
  process.stderr.write('\nOne certificate revoked\nsessions   workers  ms until gone  worst answer before  and after\n')
  for (const workers of [1, 2]) {
    const ends: (() => unknown)[] = []
    try {
      const { goneAfterMs, before, after } = await revokeOne(
        { teardown: (end) => void ends.push(end) },
        sessions,
        workers,
      )
      print({ question, sessions, workers, goneAfterMs, before, after })
      const row = [
        String(sessions).padEnd(9),
        String(workers).padStart(8),
        goneAfterMs.toFixed(0).padStart(13),
        before.worstMs.toFixed(1).padStart(19),
        after.worstMs.toFixed(1).padStart(9),
      ]
      process.stderr.write(`${row.join('  ')}\n`)
    } finally {
      for (const end of ends.reverse()) await end()
    }
  }
}

/** Even numbers, so that every second question finds nothing. */
function* serials(entries: number): Generator<string> {
  for (let n = 0; n < entries; n++) yield `40${'0'.repeat(22)}${(n * 2).toString(16).padStart(8, '0')}`
}

function probe(args: readonly string[]): Probed {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--expose-gc', PROBE, ...args], { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  // Written by the probe a moment ago.
  return JSON.parse(stdout) as Probed
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
