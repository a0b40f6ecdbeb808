// Every row looks through its own log and metrics for what must not be there (`row-secrets.ts`), and fails if it is. Here
// it is told of how many, and that the search finds what is there. Run after the others, in whose reports it reads.
import { existsSync } from 'node:fs'
import { readReports } from './results.ts'
import { row } from './row.ts'
import { PLANTED_PASSWORD, scanForSecrets } from './row-secrets.ts'

const LEAST_ROWS = 10

row(
  { number: 27, title: 'secrets', required: 'none of the planted secrets in any log or metric', seconds: 5 },
  async ({ t }) => {
    for (const form of [PLANTED_PASSWORD, Buffer.from(PLANTED_PASSWORD).toString('hex')]) {
      t.not(scanForSecrets(`{"level":"debug","detail":"x${form}y"}`).leaks, '', 'the search finds what is there')
    }
    t.is(scanForSecrets('{"level":"debug"}').leaks, '')
    const out = process.env.CHAOS_OUT
    if (out === undefined || !existsSync(out)) throw new Error('no reports of other rows: run `npm run chaos`')
    const scans = [...readReports(out).values()].flat().flatMap(({ scanned }) => scanned ?? [])
    t.true(scans.length >= LEAST_ROWS, `${scans.length} rows were searched: run the others first`)
    t.deepEqual(
      scans.flatMap(({ leaks }) => (leaks === '' ? [] : [leaks])),
      [],
    )
    const bytes = scans.reduce((sum, scan) => sum + scan.bytes, 0)
    return {
      injected: `${Math.max(...scans.map(({ secrets }) => secrets))} secrets in every row: private keys, access keys, a session token, passwords, payloads; through every other input by test/e2e/secrets.test.ts`,
      seen: `0 found in ${(bytes / 1_000_000).toFixed(1)} MB of logs and metrics of ${scans.length} rows and parts`,
    }
  },
)
