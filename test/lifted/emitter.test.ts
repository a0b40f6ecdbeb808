import { EventEmitter } from 'node:events'
import test from 'ava'
import { Emitter } from '../../src/lifted/emitter.ts'
import { randomFrom } from '../support/random.ts'

interface Both {
  on(event: string, listener: (...args: unknown[]) => void): unknown
  once(event: string, listener: (...args: unknown[]) => void): unknown
  off(event: string, listener: (...args: unknown[]) => void): unknown
  emit(event: string, ...args: unknown[]): boolean
  listeners(event: string): unknown[]
  removeAllListeners(): unknown
}

/** What listeners are told, and who is left, for the same seed. */
function run(emitter: Both, seed: number): string[] {
  const random = randomFrom(seed)
  const heard: string[] = []
  const events = ['data', 'end', 'close']
  const listeners = Array.from({ length: 5 }, (_, at) => (...args: unknown[]) => {
    heard.push(`${at}(${args.join()})`)
    // Listeners that come and go while the others are called.
    if (random(4) === 0) emitter.off(events[random(3)]!, listeners[random(5)]!)
    if (random(6) === 0) emitter.on(events[random(3)]!, listeners[random(5)]!)
  })
  for (let step = 0; step < 400; step++) {
    const event = events[random(3)]!
    const listener = listeners[random(5)]!
    const what = random(10)
    if (what < 2) emitter.on(event, listener)
    else if (what < 4) emitter.once(event, listener)
    else if (what < 6) emitter.off(event, listener)
    else if (what === 6 && step % 50 === 0) emitter.removeAllListeners()
    else heard.push(`${event} ${emitter.emit(event, step)}`)
    heard.push(
      emitter
        .listeners(event)
        .map((one) => listeners.indexOf(one as never))
        .join(),
    )
  }
  return heard
}

for (let seed = 0; seed < 50; seed++) {
  test(`it does what Node’s emitter does, seed ${seed}`, (t) => {
    t.deepEqual(run(new Emitter(), seed), run(new EventEmitter(), seed))
  })
}

test('an error that nobody listens to is nothing', (t) => {
  t.false(new Emitter().emit('error', new Error('x')))
})
