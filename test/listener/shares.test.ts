import test from 'ava'
import { type Sharer, Shares } from '../../src/listener/shares.ts'

interface Named extends Sharer {
  readonly name: string
}

const all = () => true
const named = (tenant: string, address: string, name: string): Named => ({ tenant, address, name, place: null })

function drained(shares: Shares<Named>, may: (entry: Named) => boolean = all): string[] {
  const names: string[] = []
  for (let entry = shares.next(may); entry !== null; entry = shares.next(may)) names.push(entry.name)
  return names
}

test('tenants have turns, and a tenant with many waits no less than one with few', (t) => {
  const shares = new Shares<Named>()
  for (let index = 0; index < 5; index++) shares.add(named('big', `10.0.0.${index}`, `big-${index}`))
  shares.add(named('small', '10.1.0.1', 'small-0'))
  shares.add(named('small', '10.1.0.1', 'small-1'))
  t.is(shares.size, 7)
  t.deepEqual(drained(shares), ['big-0', 'small-0', 'big-1', 'small-1', 'big-2', 'big-3', 'big-4'])
  t.is(shares.size, 0)
})

test('within a tenant addresses have turns, and within an address the oldest is first', (t) => {
  const shares = new Shares<Named>()
  for (const name of ['a1', 'a2', 'a3']) shares.add(named('one', 'a', name))
  shares.add(named('one', 'b', 'b1'))
  shares.add(named('one', 'c', 'c1'))
  t.deepEqual(drained(shares), ['a1', 'b1', 'c1', 'a2', 'a3'])
})

test('whoever may not go now is passed over and keeps its turn', (t) => {
  const shares = new Shares<Named>()
  shares.add(named('one', 'a', 'a1'))
  shares.add(named('one', 'b', 'b1'))
  t.is(shares.next(({ address }) => address === 'b')?.name, 'b1')
  t.is(
    shares.next(() => false),
    null,
  )
  t.is(shares.size, 1)
  t.deepEqual(drained(shares), ['a1'])
})

test('who left does not come, and takes no turn', (t) => {
  const shares = new Shares<Named>()
  const [first, second] = [named('one', 'a', 'a1'), named('two', 'a', 'a2')]
  shares.add(first)
  shares.add(second)
  t.true(shares.remove(first))
  t.false(shares.remove(first))
  t.deepEqual(drained(shares), ['a2'])
})

test('where there is no room, the oldest of the fullest address of the fullest tenant goes', (t) => {
  const shares = new Shares<Named>()
  t.is(shares.heaviest(), null)
  shares.add(named('small', 'z', 'z1'))
  shares.add(named('big', 'x', 'x1'))
  shares.add(named('big', 'y', 'y1'))
  shares.add(named('big', 'y', 'y2'))
  t.is(shares.heaviest()?.name, 'y1')
})
