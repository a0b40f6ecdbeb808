// Every parser under the fuzzer for a short while, always with the same seed; `npm run fuzz` does the same for hours.
// What it ever found lies in fixtures/ and is tried again.
import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'
import { campaign, failureOf } from './campaign.ts'
import { TARGETS } from './targets.ts'

const SEED = 20_26
const FIXTURES = new URL('./fixtures/', import.meta.url)
/** Far beyond what the cases take: a campaign that is cut off here says so by its count. */
const MOST_MS = 60_000

for (const target of TARGETS) {
  test.serial(`${target.name}: ${target.cases} inputs that are almost right bring no finding`, async (t) => {
    t.timeout(2 * MOST_MS)
    const { cases, kinds, findings } = await campaign(target, { seed: SEED, cases: target.cases, ms: MOST_MS })
    t.deepEqual(
      findings.map(({ message, input }) => `${message}: ${input.toString('hex')}`),
      [],
    )
    t.is(cases, target.cases)
    t.deepEqual(
      target.kinds.filter((kind) => !kinds.has(kind)),
      [],
      'kinds of answers that never came',
    )
  })

  test(`${target.name}: what the fuzzer once found stays mended`, async (t) => {
    const files = readdirSync(FIXTURES).filter((file) => file.startsWith(`${target.name}-`) && !file.startsWith('.'))
    for (const file of files) t.is(await failureOf(target, readFileSync(new URL(file, FIXTURES))), null, file)
    t.is(await failureOf(target, Buffer.alloc(0)), null, 'nothing at all')
  })
}

test('targets have names of their own, and no fixture is of none', (t) => {
  const names = TARGETS.map(({ name }) => name)
  t.is(new Set(names).size, names.length)
  const orphans = readdirSync(FIXTURES).filter((file) => !names.some((name) => file.startsWith(`${name}-`)))
  t.deepEqual(orphans, ['README.md'])
})
