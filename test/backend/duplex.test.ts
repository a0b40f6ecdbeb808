import { Duplex } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import { duplexOf } from '../../src/backend/duplex.ts'
import { FakeStream, until } from '../mqtt/fakes.ts'

test('what is a Duplex already is passed on', (t) => {
  const duplex = new Duplex({ read() {}, write() {} })
  t.is(duplexOf(duplex), duplex)
})

test('bytes go both ways, and the end of each way reaches the other side', async (t) => {
  const stream = new FakeStream()
  const duplex = duplexOf(stream)
  const heard: string[] = []
  duplex.on('data', (chunk: Buffer) => heard.push(chunk.toString('hex')))
  stream.say('01', '0203', null)
  await until(() => duplex.readableEnded)
  t.deepEqual(heard, ['01', '0203'])
  duplex.write(Buffer.from([4]))
  duplex.end()
  await until(() => stream.finished)
  t.is(stream.heard, '04')
})

test('nothing is read before somebody asks, and reading stops when nobody takes', async (t) => {
  const stream = new FakeStream()
  const duplex = duplexOf(stream)
  stream.say(Buffer.alloc(1_048_576), '01')
  await setImmediate()
  t.is(duplex.readableLength, 0)
  duplex.read()
  await until(() => duplex.readableLength === 1_048_576)
  t.false(stream.flowing)
})

test('a stream past its high-water mark holds the writer until it drains', async (t) => {
  const stream = new FakeStream()
  const duplex = duplexOf(stream)
  stream.roomy = false
  let written = 0
  duplex.write(Buffer.from([1]), () => written++)
  duplex.write(Buffer.from([2]), () => written++)
  await setImmediate()
  t.is(written, 0)
  t.is(stream.heard, '01')
  stream.roomy = true
  stream.emit('drain')
  await until(() => written === 2)
  t.is(stream.heard, '0102')
})

test('each side that is destroyed takes the other with it, and a write after that is an error that is told', async (t) => {
  const [one, other] = [new FakeStream(), new FakeStream()]
  const duplex = duplexOf(one)
  duplex.destroy()
  await until(() => one.destroyed)
  const second = duplexOf(other)
  other.reset()
  await until(() => second.destroyed)
  const failure = await new Promise((resolve) => second.write(Buffer.from([1]), resolve))
  t.true(failure instanceof Error)
  t.deepEqual(other.written, [])
})
