import test from 'ava'
import { linkedSecret, RotatingSecret, secretServer } from '../../src/store/ticket-secret.ts'

/** A clock that stands still until it is told, and secrets that can be told apart: 01…, 02…, 03…. */
function fakes() {
  const clock = { now: 0 }
  let made = 0
  return { clock, now: () => clock.now, random: (bytes: number) => Buffer.alloc(bytes, ++made) }
}

const first = (secret: Uint8Array) => secret[0]

test('a secret is 256 random bits, and two are never the same', (t) => {
  const [one, two] = [1, 2].map(() => new RotatingSecret({ maxAgeMs: 1_000 }).current().secret)
  t.is(one!.length, 32)
  t.notDeepEqual(one, two)
})

test('a secret is replaced when it has become as old as it may, and not before', (t) => {
  const { clock, now, random } = fakes()
  let rotations = 0
  const secret = new RotatingSecret({ maxAgeMs: 1_000, now, random, rotated: () => rotations++ })
  t.deepEqual([first(secret.current().secret), secret.current().epoch, rotations], [1, 1, 0])
  clock.now = 999
  t.deepEqual([first(secret.current().secret), secret.current().epoch, rotations], [1, 1, 0])
  clock.now = 1_000
  t.deepEqual([first(secret.current().secret), secret.current().epoch, rotations], [2, 2, 1])
  // However long nobody asked, it is one replacement.
  clock.now = 50_000
  t.deepEqual([first(secret.current().secret), secret.current().epoch, rotations], [3, 3, 2])
})

test('the former secret is wiped', (t) => {
  const { random } = fakes()
  const secret = new RotatingSecret({ maxAgeMs: 1_000, random })
  const before = secret.current().secret
  secret.replace(Buffer.alloc(32, 9))
  t.deepEqual(before, Buffer.alloc(32))
  t.is(first(secret.current().secret), 9)
})

test('the same secret told again changes nothing, its age neither', (t) => {
  const { clock, now, random } = fakes()
  const secret = new RotatingSecret({ maxAgeMs: 1_000, now, random })
  secret.replace(Buffer.alloc(32, 9))
  clock.now = 500
  secret.replace(Buffer.alloc(32, 9))
  t.is(secret.current().epoch, 2)
  clock.now = 1_000
  t.is(secret.current().epoch, 3)
})

/** A primary and two workers whose messages pass through JSON, as between processes. */
function house() {
  const { clock, now, random } = fakes()
  const lost = new Set<number>()
  const deliver = (id: number, message: unknown) => {
    if (!lost.has(id)) workers[id]?.heard(JSON.parse(JSON.stringify(message)))
  }
  const server = secretServer({
    random,
    tell: deliver,
    broadcast(message) {
      for (const id of workers.keys()) deliver(id, message)
    },
  })
  const asked: (() => void)[] = []
  const rotations = [0, 0]
  const workers = [0, 1].map((id) =>
    linkedSecret((message) => asked.push(() => void server.heard(JSON.parse(JSON.stringify(message)), id)), {
      maxAgeMs: 1_000,
      now,
      random: (bytes) => Buffer.alloc(bytes, 100 + id),
      rotated: () => rotations[id]!++,
    }),
  )
  const answer = () => {
    for (const ask of asked.splice(0)) ask()
  }
  return { clock, lost, server, workers, rotations, answer }
}

const secrets = ({ workers }: ReturnType<typeof house>) => workers.map((worker) => first(worker.current().secret))

test('each worker has a secret of its own until the primary answers, and then all have the same', (t) => {
  const all = house()
  t.deepEqual(secrets(all), [100, 101])
  all.answer()
  t.deepEqual(secrets(all), [1, 1])
  t.deepEqual(all.rotations, [1, 1])
})

test('a rotation of the primary reaches every worker', (t) => {
  const all = house()
  all.answer()
  all.server.rotate()
  t.deepEqual(secrets(all), [2, 2])
  t.deepEqual(all.rotations, [2, 2])
})

test('a worker that hears nothing any more goes on for two periods and then on its own', (t) => {
  const all = house()
  all.answer()
  all.lost.add(1)
  all.clock.now = 1_000
  all.server.rotate()
  t.deepEqual(secrets(all), [2, 1])
  all.clock.now = 2_000
  all.server.rotate()
  t.deepEqual(secrets(all), [3, 101])
})

test('what is no secret is not taken, and messages of others are left alone', (t) => {
  const all = house()
  all.answer()
  const [worker] = all.workers
  for (const secret of ['', 'AAAA', null, 7, {}]) t.true(worker!.heard({ tickets: 'secret', secret }))
  t.deepEqual(secrets(all), [1, 1])
  for (const other of [null, undefined, 'x', 7, {}, { tickets: 'other' }, { store: 'answer' }]) {
    t.false(worker!.heard(other))
    t.false(all.server.heard(other, 0))
  }
})
