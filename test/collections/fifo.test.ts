import test from 'ava'
import { Fifo } from '../../src/collections/fifo.ts'
import { randomFrom } from '../support/random.ts'

test('first in, first out, whatever comes in between', (t) => {
  const random = randomFrom(7)
  const fifo = new Fifo<number>()
  const model: number[] = []
  for (let step = 0; step < 20_000; step++) {
    const what = random(100)
    if (what === 0) {
      fifo.clear()
      model.length = 0
    } else if (what < (step % 2_000 < 1_000 ? 60 : 30)) {
      fifo.push(step)
      model.push(step)
    } else t.is(fifo.shift(), model.shift())
    t.is(fifo.first, model[0])
  }
})
