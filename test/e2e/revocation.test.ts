// One certificate of a fleet is revoked. Exactly that device must be gone, and the others must go on as before. How soon, and
// what the others notice, is a question of the bench: `npm run bench -- revocation`.
import test from 'ava'
import { revokeOne } from '../support/revoke-one.ts'

const FLEET = Number(process.env.E2E_FLEET ?? 2_000)

for (const workers of [1, 2]) {
  const title = `one certificate revoked among the sessions of a fleet on ${workers} worker${workers === 1 ? '' : 's'}: that device is gone, nobody else is`
  test.serial(title, async (t) => {
    t.timeout(110_000)
    const { closed, revoked, sessions, after } = await revokeOne(t, FLEET, workers)
    t.deepEqual(closed, ['victim'])
    t.is(revoked, 1)
    t.is(sessions, FLEET - 1)
    t.true(after.answers > 0)
  })
}
