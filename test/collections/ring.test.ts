import test from 'ava'
import { type Link, Ring } from '../../src/collections/ring.ts'
import { grownByChurn } from '../support/churn.ts'
import { randomFrom } from '../support/random.ts'

test('a ring is a set in the order of coming, whoever leaves', (t) => {
  const random = randomFrom(11)
  const ring = new Ring<number>()
  const model = new Set<number>()
  const links = new Map<number, Link<number>>()
  for (let step = 0; step < 20_000; step++) {
    if (random(100) < (step % 2_000 < 1_000 ? 60 : 35)) {
      links.set(step, ring.add(step))
      model.add(step)
    } else if (model.size > 0) {
      const one = [...model][random(model.size)]!
      t.true(ring.has(links.get(one)!))
      t.true(ring.remove(links.get(one)!))
      t.false(ring.has(links.get(one)!))
      t.false(ring.remove(links.get(one)!))
      model.delete(one)
    }
    t.is(ring.size, model.size)
    t.is(ring.first, [...model][0])
    if (step % 100 === 0) t.deepEqual([...ring], [...model])
  }
  t.is(
    ring.find((one) => one % 7 === 3),
    [...model].find((one) => one % 7 === 3),
  )
  t.is(
    ring.find(() => false),
    undefined,
  )
})

test('whoever is looked at may leave, and take others along', (t) => {
  const ring = new Ring<string>()
  const [a, b] = [ring.add('a'), ring.add('b')]
  ring.add('c')
  const seen: string[] = []
  for (const one of ring) {
    seen.push(one)
    ring.remove(a)
    ring.remove(b)
    if (one === 'a') ring.add('d')
  }
  t.deepEqual(seen, ['a', 'b', 'c'])
  t.deepEqual([...ring], ['c', 'd'])
})

test('a link of another ring is none', (t) => {
  const [one, other] = [new Ring<string>(), new Ring<string>()]
  const link = one.add('a')
  t.false(other.has(link))
  t.false(other.remove(link))
  t.is(one.size, 1)
})

test('who has left a ring is young garbage', async (t) => {
  const ring = new Ring<object>()
  const here: Link<object>[] = []
  const grown = await grownByChurn((thing) => {
    here.push(ring.add(thing))
    if (here.length > 8) ring.remove(here.shift()!)
  })
  t.true(grown < 0.2, `${grown} of what had left was still there`)
})
