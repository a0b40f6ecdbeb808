import test from 'ava'
import { Flight, PacketIds } from '../../src/mqtt/packet-ids.ts'
import { seeded } from './fakes.ts'

test('a set of packet ids is a set, few or many, in any order', (t) => {
  const random = seeded(7)
  for (const range of [4, 31, 40, 500, 65_535]) {
    const ids = new PacketIds()
    const model = new Set<number>()
    for (let step = 0; step < 20_000; step++) {
      const id = 1 + Math.floor(random() * range)
      // Now more are added, now more are taken away, so that it grows over every form and shrinks back.
      if (random() < (step % 4_000 < 2_000 ? 0.7 : 0.2)) {
        if (ids.add(id) === model.has(id)) return t.fail(`add ${id} at step ${step}`)
        model.add(id)
      } else if (ids.delete(id) !== model.delete(id)) return t.fail(`delete ${id} at step ${step}`)
      if (ids.size !== model.size || ids.has(id) !== model.has(id)) return t.fail(`${id} at step ${step}`)
    }
    for (const id of model) t.true(ids.delete(id))
    t.is(ids.size, 0)
  }
})

test('the edges of the id space do not touch each other', (t) => {
  const ids = new PacketIds()
  for (let id = 1; id <= 65_535; id++) ids.add(id)
  t.is(ids.size, 65_535)
  t.true(ids.delete(65_535))
  t.deepEqual([ids.has(1), ids.has(32), ids.has(65_534), ids.has(65_535)], [true, true, true, false])
})

test('a QoS 2 publish is complete with PUBCOMP or a PUBREC that failed, and answered with any of them', (t) => {
  const flight = new Flight()
  flight.ours.add(1)
  for (const id of [1, 2, 3]) flight.publishPassed(id)
  t.false(flight.ours.has(1), 'what goes on is the receiver’s')
  flight.answered(5, 1, false)
  flight.answered(5, 2, true)
  flight.answered(4, 3, false)
  t.deepEqual([flight.unanswered.size, flight.passed.has(1), flight.passed.size], [0, true, 1])
  flight.answered(7, 1, false)
  t.is(flight.passed.size, 0)
})
