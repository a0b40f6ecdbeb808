import test from 'ava'
import { type Lease, SharedParts } from '../../src/generation/shared.ts'

interface Part {
  readonly name: string
  closed: boolean
}

const rig = () => {
  const shared = new SharedParts()
  const closed: string[] = []
  const use = (lease: Lease, kind: string, key: readonly unknown[], isCurrent?: () => boolean): Part =>
    lease.use<Part>(
      kind,
      {
        key,
        close(part) {
          part.closed = true
          closed.push(part.name)
        },
        ...(isCurrent && { isCurrent }),
      },
      () => ({ name: `${kind} ${key.join()}`, closed: false }),
    )
  return { shared, closed, use }
}

test('a generation that asks for the same gets the same object', (t) => {
  const { shared, use } = rig()
  const [one, two] = [shared.lease(), shared.lease()]
  t.is(use(one, 'backend', ['main', 1]), use(two, 'backend', ['main', 1]))
  t.not(use(one, 'backend', ['main', 1]), use(two, 'backend', ['main', 2]))
  t.not(use(one, 'backend', ['main', 1]), use(two, 'publisher', ['main', 1]))
})

test('a part lives until the last generation that uses it has given it back', async (t) => {
  const { shared, use } = rig()
  const [one, two] = [shared.lease(), shared.lease()]
  const part = use(one, 'backend', ['main'])
  use(two, 'backend', ['main'])
  await one.release()
  t.false(part.closed)
  await two.release()
  t.true(part.closed)
  t.is(shared.size, 0)
})

test('a generation counts once for a part, however often it asks', async (t) => {
  const { shared, use } = rig()
  const one = shared.lease()
  const part = use(one, 'registry', ['main'])
  t.is(use(one, 'registry', ['main']), part)
  await one.release()
  t.true(part.closed)
})

test('what is not as it was is made anew, and the former one is left to who has it', async (t) => {
  const { shared, use } = rig()
  const [one, two, three] = [shared.lease(), shared.lease(), shared.lease()]
  let current = true
  const former = use(one, 'registry', ['main'], () => current)
  current = false
  const next = use(two, 'registry', ['main'], () => true)
  t.not(next, former)
  await one.release()
  t.true(former.closed)
  t.false(next.closed)
  t.is(
    use(three, 'registry', ['main'], () => true),
    next,
  )
})

test('kinds are given back the last first, because they use those before them', async (t) => {
  const { shared, use, closed } = rig()
  const lease = shared.lease()
  use(lease, 'backend', ['a'])
  use(lease, 'publisher', ['a'])
  use(lease, 'sink', [0])
  await lease.release()
  t.deepEqual(closed, ['sink 0', 'publisher a', 'backend a'])
})

test('one that cannot be closed does not keep the others open, and is told', async (t) => {
  const { shared, use } = rig()
  const lease = shared.lease()
  const backend = use(lease, 'backend', ['a'])
  lease.use('sink', { key: [0], close: () => Promise.reject(new Error('stuck')) }, () => 'sink')
  await t.throwsAsync(lease.release(), { message: 'stuck' })
  t.true(backend.closed)
  t.is(shared.size, 0)
})

test('what cannot be made is not kept', async (t) => {
  const { shared } = rig()
  const lease = shared.lease()
  const keeping = { key: ['x'], close() {} }
  t.throws(
    () =>
      lease.use('backend', keeping, () => {
        throw new Error('no such key')
      }),
    { message: 'no such key' },
  )
  await t.throwsAsync(
    lease.useLater('sink', keeping, () => Promise.reject(new Error('no such module'))),
    { message: 'no such module' },
  )
  t.is(shared.size, 0)
  t.is(await lease.useLater('sink', keeping, async () => 'made'), 'made')
  t.is(await lease.useLater('sink', keeping, async () => 'again'), 'made')
})
