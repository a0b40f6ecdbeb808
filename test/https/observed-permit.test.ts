import test from 'ava'
import { observed } from '../../src/https/observed-permit.ts'
import type { Permit } from '../../src/policy/permit.ts'

const ONLY_A: Permit = { allows: (_action, resource) => resource === 'topic/a', allowsAll: () => false }

for (const reportOnly of [false, true]) {
  test(`every decision is told as it is; what is denied ${reportOnly ? 'passes for a report' : 'is denied'}`, (t) => {
    const told: unknown[] = []
    const permit = observed(ONLY_A, { reportOnly, decided: (...decision) => told.push(decision) })
    t.true(permit.allows('iot:Publish', 'topic/a'))
    t.is(permit.allows('iot:Publish', 'topic/b'), reportOnly)
    t.is(permit.allowsAll('iot:Publish'), reportOnly)
    t.deepEqual(told, [
      ['iot:Publish', 'topic/a', true],
      ['iot:Publish', 'topic/b', false],
    ])
  })
}
