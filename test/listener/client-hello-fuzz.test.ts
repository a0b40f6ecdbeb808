/**
 * The parser reads what anybody on the Internet sends, before anything is known about them. A fault here is a
 * fault of every device's front door: so a million hellos that are almost right, none of which may throw, read
 * outside its bytes, or take more work than its length allows.
 */
import test from 'ava'
import { type HelloParse, HelloReader, parseClientHello } from '../../src/listener/client-hello.ts'
import {
  extension,
  fixtures,
  handshake,
  hello,
  messageOf,
  random,
  records,
  u16,
  vector16,
} from '../support/hello-build.ts'

const FIXTURES = fixtures()
const CASES = 1_000_000
const RUNS = 10
const GUARD = 64

/** A place for inputs with bytes around them that would change the answer of whoever reads them. */
const arena = Buffer.alloc(8_192)

function place(bytes: Uint8Array, poison: number): Buffer {
  const end = GUARD + bytes.length
  arena.fill(poison, 0, GUARD)
  arena.set(bytes, GUARD)
  arena.fill(poison, end, end + GUARD)
  return arena.subarray(GUARD, end)
}

const KINDS: ReadonlySet<string> = new Set<HelloParse['kind']>([
  'hello',
  'incomplete',
  'not-tls',
  'malformed',
  'oversized',
])

for (const { client, bytes } of FIXTURES) {
  test(`${client}: no flipped bit makes it throw`, (t) => {
    const mutant = Buffer.from(bytes)
    const seen = new Set<string>()
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      mutant[bit >> 3]! ^= 1 << (bit & 7)
      seen.add(parseClientHello(mutant).kind)
      mutant[bit >> 3]! ^= 1 << (bit & 7)
    }
    t.deepEqual(
      [...seen].filter((kind) => !KINDS.has(kind)),
      [],
    )
    t.true(seen.has('hello') && seen.has('malformed') && seen.has('not-tls') && seen.has('incomplete'))
  })
}

const seeds: Buffer[] = [
  ...FIXTURES.map(({ bytes }) => bytes),
  ...FIXTURES.map(({ bytes }) => records(messageOf(bytes), 61)),
  hello({ extensions: null }),
]

/** One to four small changes, in place; returns the length left. */
function mutate(mutant: Buffer, length: number, below: (limit: number) => number): number {
  for (let changes = 1 + below(4); changes > 0 && length > 2; changes -= 1) {
    const at = below(length)
    switch (below(8)) {
      case 0:
        mutant[at]! ^= 1 << below(8)
        break
      case 1:
        mutant[at] = below(256)
        break
      case 2: // a length field, if it hits one
        mutant.writeUInt16BE(below(2) === 0 ? below(65_536) : below(300), Math.min(at, length - 2))
        break
      case 3: // near the front, where most of the structure is
        mutant[Math.min(below(100), length - 1)] = below(256)
        break
      case 4: // one more, one less
        mutant[at]! += below(2) === 0 ? 1 : -1
        break
      case 5:
        if (below(4) === 0) length = at
        break
      case 6: // a piece is copied elsewhere
        mutant.copyWithin(below(length), at, Math.min(at + 1 + below(64), length))
        break
      case 7: // a piece is taken out or put in twice
        if (below(2) === 0) {
          const cut = Math.min(1 + below(16), length - at)
          mutant.copyWithin(at, at + cut, length)
          length -= cut
        } else {
          const more = Math.min(1 + below(16), length - at, mutant.length - length)
          mutant.copyWithin(at + more, at, length)
          length += more
        }
        break
    }
    length = Math.min(length, mutant.length)
  }
  return length
}

for (let run = 0; run < RUNS; run += 1) {
  test(`mutated hellos, seed ${run}: ${CASES / RUNS} cases never throw and never look outside`, (t) => {
    t.timeout(120_000)
    const below = random(run + 1)
    const mutant = Buffer.alloc(8_000)
    const kinds: Record<string, number> = {}
    let strays = 0
    for (let index = 0; index < CASES / RUNS; index += 1) {
      const seed = seeds[below(seeds.length)]!
      mutant.set(seed)
      const bytes = mutant.subarray(0, mutate(mutant, seed.length, below))
      const parse = parseClientHello(place(bytes, 0xff))
      kinds[parse.kind] = (kinds[parse.kind] ?? 0) + 1
      if (parse.kind === 'hello' && (parse.bytes > bytes.length || parse.hello.ja4.length < 36)) strays += 1
      // The same bytes among other neighbors, and in two pieces, every now and then.
      if (index % 8 !== 0) continue
      const again = parseClientHello(place(bytes, index % 16 === 0 ? 0x00 : 0x16))
      const reader = new HelloReader()
      const cut = below(bytes.length + 1)
      reader.push(Buffer.from(bytes.subarray(0, cut)))
      const pieces = reader.push(Buffer.from(bytes.subarray(cut)))
      if (JSON.stringify(again) !== JSON.stringify(parse) || JSON.stringify(pieces) !== JSON.stringify(parse))
        strays += 1
    }
    t.is(strays, 0)
    t.deepEqual(
      Object.keys(kinds).filter((kind) => !KINDS.has(kind)),
      [],
    )
    // A fuzz that only ever hits the first check tests the first check.
    t.true(kinds.hello! > 10_000 && kinds.malformed! > 10_000 && kinds.incomplete! > 2_000, JSON.stringify(kinds))
  })
}

/** The bytes behind a counter: every index that is read is one look, and none may lie outside. */
function counted(bytes: Uint8Array): {
  readonly view: Uint8Array
  readonly looks: () => number
  readonly outside: () => number
} {
  let looks = 0
  let outside = 0
  const wrap = (target: Uint8Array): Uint8Array =>
    new Proxy(target, {
      get(_, key) {
        if (key === 'length') return target.length
        if (key === 'subarray') return (from: number, to: number) => wrap(target.subarray(from, to))
        if (typeof key !== 'string' || !/^\d+$/.test(key)) throw new Error(`the parser uses ${String(key)}`)
        looks += 1
        if (Number(key) >= target.length) outside += 1
        return target[Number(key)]
      },
    })
  return { view: wrap(bytes), looks: () => looks, outside: () => outside }
}

test('no byte of a hello in one record is looked at more than three times, and none outside it', (t) => {
  const below = random(7)
  const single = seeds.filter((seed) => seed.readUInt16BE(3) + 5 === seed.length)
  const mutant = Buffer.alloc(8_000)
  // Lists as long as they can be: the worst that fits into one record.
  const dense = [
    hello({ cipherSuites: Buffer.alloc(16_000, 0x13) }),
    hello({ extensions: Array.from({ length: 4_000 }, (_, type) => extension(100 + type, Buffer.alloc(0))) }),
    hello({ extensions: [extension(16, vector16(Buffer.from('0161'.repeat(8_000), 'hex')))] }),
    hello({ extensions: [extension(13, vector16(u16(...Array<number>(8_000).fill(0x0403))))] }),
  ]
  let worst = 0
  for (let index = 0; index < 4_000; index += 1) {
    const seed = single[below(single.length)]!
    mutant.set(seed)
    const input = dense[index] ?? mutant.subarray(0, index < 200 ? seed.length : mutate(mutant, seed.length, below))
    // A mutation may have cut it into records; those are put together by copying whole runs, not byte by byte.
    if (index >= dense.length && input.length > 5) input.writeUInt16BE(Math.min(input.length - 5, 16_384), 3)
    const count = counted(input)
    parseClientHello(count.view)
    if (count.outside() > 0) return t.fail(`looked outside of ${input.toString('hex')}`)
    worst = Math.max(worst, count.looks() / Math.max(input.length, 1))
  }
  t.true(worst <= 3, `${worst} looks per byte`)
})

/** A chunk that counts how often it is looked into. */
function counting(chunk: Uint8Array, looked: () => void): Uint8Array {
  return new Proxy(chunk, {
    get(target, name) {
      looked()
      return Reflect.get(target, name)
    },
  })
}

test('a peer that drips 64 KiB byte by byte, in records of one byte, costs work in proportion', (t) => {
  const body = messageOf(hello({ extensions: [extension(21, Buffer.alloc(10_700))] })).subarray(4)
  const wire = records(handshake(body), 1)
  let looks = 0
  const reader = new HelloReader()
  for (let at = 0; at < wire.length - 1; at += 1) {
    const parsed = reader.push(counting(wire.subarray(at, at + 1), () => looks++))
    if (parsed.kind !== 'incomplete') return t.fail(parsed.kind)
  }
  // Its length some times and its one byte once; a quadratic reader would look tens of thousands of times.
  t.true(looks <= 6 * wire.length, `${looks} looks at ${wire.length} bytes`)
})

test('its message is put together once, when its last byte is there', (t) => {
  const body = messageOf(hello({ extensions: [extension(21, Buffer.alloc(10_700))] })).subarray(4)
  const wire = records(handshake(body), 1)
  let copied = 0
  const { concat } = Buffer
  const { set } = Uint8Array.prototype
  Buffer.concat = (list, length) => {
    const whole = concat(list, length)
    copied += whole.length
    return whole
  }
  Uint8Array.prototype.set = function (from, at) {
    copied += from.length
    return set.call(this, from, at)
  }
  try {
    const reader = new HelloReader()
    let last: HelloParse = { kind: 'not-tls' }
    for (let at = 0; at < wire.length; at += 1) last = reader.push(wire.subarray(at, at + 1))
    t.is(last.kind, 'hello')
  } finally {
    Buffer.concat = concat
    Uint8Array.prototype.set = set
  }
  // Once the records, and once what is in them; where the runtime's own `concat` calls `set`, the records twice.
  t.true(copied <= 3 * wire.length, `${copied} bytes copied of ${wire.length}`)
})
