import { isUtf8 } from 'node:buffer'
import { isDeepStrictEqual } from 'node:util'
import test from 'ava'
import fc from 'fast-check'
import mqttPacket, { type IConnectPacket } from 'mqtt-packet'
import { type Connect, type ConnectRead, connectDecoder, parseConnect, readConnect } from '../../src/mqtt/connect.ts'
import { rewriteConnect } from '../../src/mqtt/rewrite.ts'
import { chunked, FakeStream, hex, seeded } from './fakes.ts'

const V4 = '100d 0004 4d515454 04 02 003c 0001 61'
const V5 = '100e 0004 4d515454 05 02 003c 00 0001 61'
/**
 * MQTT 5 with everything: session expiry and receive maximum between three user properties, client id `dev`, a will
 * with properties (QoS 1, retain, topic `t/w`, payload `bye`), user name `?SDK=JS`, password `pw`.
 */
const FULL = hex(`10 58 0004 4d515454 05 ee 003c
  1d 26000162000131 1100000e10 26000161000132 210014 26000162000133
  0003 646576
  13 0101 1800000005 26000178000179 0300026374
  0003 742f77 0003 627965
  0007 3f53444b3d4a53 0002 7077`)

function connectOf(octets: string | Buffer): Connect {
  const connect = parseConnect(typeof octets === 'string' ? hex(octets) : octets)
  if ('kind' in connect) throw new Error(`test CONNECT was refused: ${JSON.stringify(connect)}`)
  return connect
}

const verdict = (found: Connect | ConnectRead): string =>
  !('kind' in found) ? 'connect' : found.kind === 'refused' ? `${found.code} ${found.version}` : found.kind

const octets = (buffer: Buffer | null) => buffer?.toString('hex') ?? null

for (const [name, packet] of [
  ['3.1.1', hex(V4)],
  ['5', FULL],
] as const) {
  test(`a CONNECT of ${name} is whole at every split, and what follows comes back`, async (t) => {
    const bytes = Buffer.concat([packet, hex('c000')])
    for (let split = 1; split < bytes.length; split++) {
      const stream = new FakeStream()
      const reading = readConnect(stream, 1_024, 60_000)
      stream.say(bytes.subarray(0, split), bytes.subarray(split))
      const read = await reading
      if (read.kind !== 'connect') return t.fail(`${verdict(read)} at ${split}`)
      t.is(octets(read.connect.bytes), octets(packet))
      // What the device says later stays in the paused stream, nothing lost.
      const later: Buffer[] = []
      t.false(stream.flowing)
      stream.on('data', (chunk: Buffer) => later.push(chunk))
      stream.resume()
      await Promise.resolve()
      t.is(octets(Buffer.concat([read.rest ?? Buffer.alloc(0), ...later])), 'c000', `split ${split}`)
    }
  })
}

test('a CONNECT that comes byte by byte, with empty chunks between, is whole', async (t) => {
  const stream = new FakeStream()
  const reading = readConnect(stream, 1_024, 60_000)
  for (const byte of chunked(FULL, 1)) stream.say(Buffer.alloc(0), byte)
  const read = await reading
  t.is(read.kind, 'connect')
  t.is(stream.listenerCount('data') + stream.listenerCount('end') + stream.listenerCount('close'), 0)
})

test('what CONNECT says is read', (t) => {
  const { version, clientId, cleanStart, keepAliveSeconds, packet } = connectOf(FULL)
  t.deepEqual([version, clientId, cleanStart, keepAliveSeconds], [5, 'dev', true, 60])
  t.is(packet.username, '?SDK=JS')
})

const is = test.macro({
  exec(t, expected: string, packet: string) {
    t.is(verdict(parseConnect(hex(packet))), expected)
  },
  title: (title, expected: string) => `${title}: ${expected}`,
})

test('MQTT 3.1.1', is, 'connect', V4)
test('MQTT 5', is, 'connect', V5)
test('a protocol name of another', is, 'ERR_NOT_MQTT 4', '100d 0004 41414141 04 02 003c 0001 61')
test('MQIsdp level 3', is, 'ERR_PROTOCOL_VERSION 4', '100f 0006 4d5149736470 03 02 003c 0001 61')
test('MQIsdp level 4', is, 'ERR_PROTOCOL_VERSION 4', '100f 0006 4d5149736470 04 02 003c 0001 61')
test('level 6', is, 'ERR_PROTOCOL_VERSION 4', '100d 0004 4d515454 06 02 003c 0001 61')
test('level 3 by the new name', is, 'ERR_PROTOCOL_VERSION 4', '100d 0004 4d515454 03 02 003c 0001 61')
test('level 4 with the bridge bit', is, 'ERR_PROTOCOL_VERSION 4', '100d 0004 4d515454 84 02 003c 0001 61')
test('the reserved flag [MQTT-3.1.2-3]', is, 'ERR_CONNECT_MALFORMED 4', '100d 0004 4d515454 04 03 003c 0001 61')
test('the reserved flag on 5', is, 'ERR_CONNECT_MALFORMED 5', '100e 0004 4d515454 05 03 003c 00 0001 61')
test('will retain without a will', is, 'ERR_CONNECT_MALFORMED 4', '100d 0004 4d515454 04 22 003c 0001 61')
test('will QoS without a will', is, 'ERR_CONNECT_MALFORMED 4', '100d 0004 4d515454 04 0a 003c 0001 61')
test('will QoS 3', is, 'ERR_CONNECT_MALFORMED 4', '1013 0004 4d515454 04 1e 003c 0001 61 0001 77 0001 78')
test(
  'a will topic with a wildcard',
  is,
  'ERR_CONNECT_MALFORMED 4',
  '1013 0004 4d515454 04 06 003c 0001 61 0001 23 0001 78',
)
test('a will without topic', is, 'ERR_CONNECT_MALFORMED 4', '1012 0004 4d515454 04 06 003c 0001 61 0000 0001 78')
test(
  'a client id that is not UTF-8 [MQTT-1.5.4-1]',
  is,
  'ERR_CONNECT_MALFORMED 4',
  '100d 0004 4d515454 04 02 003c 0001 ff',
)
test('a surrogate', is, 'ERR_CONNECT_MALFORMED 4', '100f 0004 4d515454 04 02 003c 0003 eda080')
test('NUL in the client id [MQTT-1.5.4-2]', is, 'ERR_CONNECT_MALFORMED 4', '100d 0004 4d515454 04 02 003c 0001 00')
test('a user name that is not UTF-8', is, 'ERR_CONNECT_MALFORMED 4', '1010 0004 4d515454 04 82 003c 0001 61 0001 c3')
test(
  'a control character in the user name',
  is,
  'ERR_CONNECT_MALFORMED 4',
  '1010 0004 4d515454 04 82 003c 0001 61 0001 1f',
)
test('U+FFFF in the user name', is, 'ERR_CONNECT_MALFORMED 4', '1012 0004 4d515454 04 82 003c 0001 61 0003 efbfbf')
test('a byte after the payload', is, 'ERR_CONNECT_MALFORMED 4', '100e 0004 4d515454 04 02 003c 0001 61 00')
test('a client id past the end', is, 'ERR_CONNECT_MALFORMED 4', '100d 0004 4d515454 04 02 003c 0002 61')
test('an end in the keep alive', is, 'ERR_CONNECT_MALFORMED 4', '1009 0004 4d515454 04 02 00')
test(
  'a password without user name [MQTT-3.1.2-22]',
  is,
  'ERR_CONNECT_MALFORMED 4',
  '1010 0004 4d515454 04 42 003c 0001 61 0001 70',
)
test('a password without user name on 5', is, 'connect', '1011 0004 4d515454 05 42 003c 00 0001 61 0001 70')
test(
  'no client id and no clean session [MQTT-3.1.3-8]',
  is,
  'ERR_CLIENT_ID_INVALID 4',
  '100c 0004 4d515454 04 00 003c 0000',
)
test('no client id and clean session', is, 'connect', '100c 0004 4d515454 04 02 003c 0000')
test('no client id and no clean start on 5', is, 'connect', '100d 0004 4d515454 05 00 003c 00 0000')
test('a property of another packet', is, 'ERR_CONNECT_MALFORMED 5', '1011 0004 4d515454 05 02 003c 03 23000a 0001 61')
test('a property twice', is, 'ERR_CONNECT_MALFORMED 5', '1014 0004 4d515454 05 02 003c 06 210001 210001 0001 61')
test('receive maximum 0', is, 'ERR_CONNECT_MALFORMED 5', '1011 0004 4d515454 05 02 003c 03 210000 0001 61')
test('maximum packet size 0', is, 'ERR_CONNECT_MALFORMED 5', '1013 0004 4d515454 05 02 003c 05 2700000000 0001 61')
test('a problem flag of 2', is, 'ERR_CONNECT_MALFORMED 5', '1010 0004 4d515454 05 02 003c 02 1702 0001 61')
test('authentication data alone', is, 'ERR_CONNECT_MALFORMED 5', '1012 0004 4d515454 05 02 003c 04 16000161 0001 61')
// Property length 1, and the value reaches into what we take for the client id.
test('a property that reaches out', is, 'ERR_CONNECT_MALFORMED 5', '1011 0004 4d515454 05 02 003c 01 21 0001 61 6162')
test('the first byte of another packet', is, 'ERR_CONNECT_MALFORMED 4', '310d 0004 4d515454 04 02 003c 0001 61')
test('a remaining length that is not so', is, 'ERR_CONNECT_MALFORMED 4', '100c 0004 4d515454 04 02 003c 0001 61')

const readsAs = test.macro({
  async exec(t, expected: string, packet: string, maxBytes?: number) {
    const stream = new FakeStream()
    const reading = readConnect(stream, maxBytes ?? 1_024, 60_000)
    stream.say(packet)
    t.is(verdict(await reading), expected)
    t.false(stream.flowing)
  },
  title: (title, expected: string) => `${title} ends the reading at once: ${expected}`,
})

test('a first byte of another packet', readsAs, 'ERR_NOT_MQTT 4', 'c0')
test('CONNECT with flags', readsAs, 'ERR_NOT_MQTT 4', '11')
test('HTTP', readsAs, 'ERR_NOT_MQTT 4', '474554202f')
test('a remaining length over four bytes', readsAs, 'ERR_NOT_MQTT 4', '10 80808080')
test(
  'a declared length over the limit, before its body is buffered,',
  readsAs,
  'ERR_CONNECT_OVERSIZED 4',
  '10 ff07',
  1_024,
)
test('a CONNECT one byte over the limit', readsAs, 'ERR_CONNECT_OVERSIZED 4', '100d', 14)
test('a CONNECT of the limit', readsAs, 'connect', V4, 15)

test('the deadline is for the whole packet: a part of it does not help', async (t) => {
  const stream = new FakeStream()
  stream.say('100d 0004')
  t.is(verdict(await readConnect(stream, 1_024, 1)), 'ERR_CONNECT_TIMEOUT 4')
  t.is(stream.listenerCount('data'), 0)
})

test('a device that leaves before it spoke is gone, and within CONNECT it was malformed', async (t) => {
  const gone = async (...said: (string | null)[]) => {
    const stream = new FakeStream()
    const reading = readConnect(stream, 1_024, 60_000)
    stream.say(...said)
    if (!said.includes(null)) stream.reset()
    return verdict(await reading)
  }
  t.is(await gone(null), 'gone')
  t.is(await gone(), 'gone')
  t.is(await gone('10', null), 'ERR_CONNECT_MALFORMED 4')
  t.is(await gone('100d00'), 'ERR_CONNECT_MALFORMED 4')
})

test('a device that left before anybody listened is gone at once', async (t) => {
  const reset = new FakeStream()
  reset.reset()
  t.is(verdict(await readConnect(reset, 1_024, 60_000)), 'gone')
  const ended = new FakeStream()
  ended.readableEnded = true
  t.is(verdict(await readConnect(ended, 1_024, 60_000)), 'gone')
})

// --- rewriting

test('without changes the very same bytes go on', (t) => {
  const connect = connectOf(FULL)
  t.is(rewriteConnect(connect, {}), connect.bytes)
})

test('telemetry in the user name goes, and every other byte stays', (t) => {
  const rewritten = rewriteConnect(connectOf(FULL), { credentials: { username: null, password: null } })
  t.is(
    octets(rewritten),
    octets(
      hex(`10 4b 0004 4d515454 05 2e 003c
        1d 26000162000131 1100000e10 26000161000132 210014 26000162000133
        0003 646576
        13 0101 1800000005 26000178000179 0300026374
        0003 742f77 0003 627965`),
    ),
  )
})

test('client id, keep alive and credentials are replaced in their places', (t) => {
  const changes = { clientId: 'gateway', keepAliveSeconds: 0, credentials: { username: 'u', password: null } }
  t.is(
    octets(rewriteConnect(connectOf(FULL), changes)),
    octets(
      hex(`10 52 0004 4d515454 05 ae 0000
        1d 26000162000131 1100000e10 26000161000132 210014 26000162000133
        0007 67617465776179
        13 0101 1800000005 26000178000179 0300026374
        0003 742f77 0003 627965
        0001 75`),
    ),
  )
})

test('a packet that grows past 127 bytes gets a longer length', (t) => {
  const rewritten = rewriteConnect(connectOf(V4), { clientId: 'x'.repeat(200) })
  t.is(octets(rewritten.subarray(0, 17)), octets(hex('10 d401 0004 4d515454 04 02 003c 00c8 7878')))
  t.is(rewritten.length, 3 + 212)
})

test('a password alone on 3.1.1 takes an empty user name along [MQTT-3.1.2-22]', (t) => {
  const credentials = { username: null, password: 'p' }
  t.is(
    octets(rewriteConnect(connectOf(V4), { credentials })),
    octets(hex('1012 0004 4d515454 04 c2 003c 0001 61 0000 0001 70')),
  )
  t.is(
    octets(rewriteConnect(connectOf(V5), { credentials })),
    octets(hex('1011 0004 4d515454 05 42 003c 00 0001 61 0001 70')),
  )
})

test('a field over 65535 bytes is refused', (t) => {
  t.throws(() => rewriteConnect(connectOf(V4), { clientId: 'x'.repeat(65_536) }), { code: 'ERR_CLIENT_ID_INVALID' })
})

const text = fc.string({ unit: 'grapheme', maxLength: 20 }).filter((value) => !value.includes('\0'))
const word = text.filter((value) => value !== '' && !/[+#]/.test(value))
const binary = fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes))
const userProperties = fc.dictionary(
  word.filter((value) => value !== '__proto__'),
  fc.oneof(text, fc.array(text, { minLength: 2, maxLength: 3 })),
  { minKeys: 1, maxKeys: 3, noNullPrototype: true },
)
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined })
/** Without the keys that are undefined, as mqtt-packet wants it. */
const dense = <T extends object>(value: T): T =>
  Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T

const connects = fc
  .record({
    version: fc.constantFrom(4 as const, 5 as const),
    clientId: word,
    clean: fc.boolean(),
    keepalive: fc.nat(65_535),
    username: optional(word),
    password: optional(binary.filter((value) => value.length > 0)),
    properties: fc.record({
      sessionExpiryInterval: optional(fc.nat(0xffff_ffff)),
      receiveMaximum: optional(fc.integer({ min: 1, max: 65_535 })),
      maximumPacketSize: optional(fc.integer({ min: 1, max: 0xffff_ffff })),
      topicAliasMaximum: optional(fc.nat(65_535)),
      requestResponseInformation: optional(fc.boolean()),
      requestProblemInformation: optional(fc.boolean()),
      userProperties: optional(userProperties),
    }),
    will: optional(
      fc.record({
        topic: word,
        payload: binary.filter((value) => value.length > 0),
        qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
        retain: fc.boolean(),
        properties: fc.record({
          willDelayInterval: optional(fc.nat(0xffff_ffff)),
          payloadFormatIndicator: optional(fc.boolean()),
          contentType: optional(word),
          responseTopic: optional(word),
          correlationData: optional(binary),
          userProperties: optional(userProperties),
        }),
      }),
    ),
  })
  .map(({ version, will, properties, password, ...rest }) => {
    // mqtt-packet cannot generate a password alone, which MQTT 5 allows.
    const named = rest.username === undefined ? undefined : password
    return dense({
      cmd: 'connect' as const,
      protocolId: 'MQTT' as const,
      protocolVersion: version,
      ...rest,
      password: named,
      properties: version === 5 ? dense(properties) : undefined,
      will:
        will === undefined
          ? undefined
          : dense({ ...will, properties: version === 5 ? dense(will.properties) : undefined }),
    }) as unknown as IConnectPacket
  })

function decoded(bytes: Buffer): IConnectPacket {
  let found: IConnectPacket | null = null
  const parser = mqttPacket.parser()
  parser.on('packet', (packet) => {
    found = packet as IConnectPacket
  })
  parser.on('error', (error) => {
    throw error
  })
  parser.parse(bytes)
  if (found === null) throw new Error('no packet')
  return found
}

test('every generated CONNECT is read, and every combination of changes round-trips', (t) => {
  const changes = fc.record({
    clientId: optional(text),
    keepAliveSeconds: optional(fc.nat(65_535)),
    credentials: optional(
      fc.record({ username: fc.option(word, { nil: null }), password: fc.option(word, { nil: null }) }),
    ),
  })
  fc.assert(
    fc.property(connects, changes, (packet, change) => {
      const bytes = mqttPacket.generate(packet)
      const before = decoded(bytes)
      const connect = connectOf(bytes)
      t.true(isReadAlike(connect))
      const { length: _, clientId, keepalive, username, password, ...kept } = decoded(rewriteConnect(connect, change))
      const { length: __, clientId: ___, keepalive: ____, username: _____, password: ______, ...meant } = before
      t.deepEqual(kept, meant)
      t.is(clientId, change.clientId ?? before.clientId)
      t.is(keepalive, change.keepAliveSeconds ?? before.keepalive)
      const { credentials } = change
      const empty = credentials?.password != null && packet.protocolVersion === 4 ? '' : undefined
      t.is(username, credentials === undefined ? before.username : (credentials.username ?? empty))
      t.is(
        password?.toString(),
        credentials === undefined ? before.password?.toString() : (credentials.password ?? undefined),
      )
    }),
    { numRuns: 1_000, seed: 20 },
  )
})

/** The layout of CONNECT written down a second time, for the fuzz to hold against the first. */
function keepsLayout(bytes: Buffer): boolean {
  let at = 1
  const varint = () => {
    let value = 0
    for (let i = 0; i < 4; i++) {
      const byte = bytes[at++]
      if (byte === undefined) return Number.NaN
      value += (byte % 128) * 128 ** i
      if (byte < 128) return value
    }
    return Number.NaN
  }
  const field = (isText: boolean) => {
    if (at + 2 > bytes.length) return false
    const end = at + 2 + bytes[at]! * 256 + bytes[at + 1]!
    const body = bytes.subarray(at + 2, end)
    at = end
    return end <= bytes.length && (!isText || (isUtf8(body) && !body.includes(0)))
  }
  if (varint() !== bytes.length - at) return false
  if (bytes.subarray(at, at + 6).toString('latin1') !== '\0\x04MQTT') return false
  const level = bytes[at + 6]!
  const flags = bytes[at + 7]!
  at += 10
  if ((level !== 4 && level !== 5) || flags & 1) return false
  const skipProperties = () => {
    const length = level === 5 ? varint() : 0
    at += length
    return at <= bytes.length
  }
  if (!skipProperties() || !field(true)) return false
  if (flags & 4 ? (flags & 0x18) === 0x18 : flags & 0x38) return false
  if (flags & 4 && !(skipProperties() && field(true) && field(false))) return false
  if (level === 4 && (flags & 0xc0) === 0x40) return false
  if (flags & 0x80 && !field(true)) return false
  if (flags & 0x40 && !field(false)) return false
  return at === bytes.length
}

/** Whether mqtt-packet reads the same in it. */
function isReadAlike({ bytes, version, clientId, cleanStart, keepAliveSeconds, packet }: Connect): boolean {
  const { username, password, will, properties } = packet
  const other = decoded(bytes)
  return isDeepStrictEqual(
    [version, clientId, cleanStart, keepAliveSeconds, username, password, will, properties],
    [
      other.protocolVersion,
      other.clientId,
      other.clean,
      other.keepalive,
      other.username,
      other.password,
      other.will,
      other.properties,
    ],
  )
}

test('200 000 mutated CONNECTs never throw, and what is accepted keeps the layout and is read alike', (t) => {
  const random = seeded(0xc0ffee)
  const seeds = [
    hex(V4),
    hex(V5),
    FULL,
    hex('1013 0004 4d515454 04 c2 003c 0001 61 0001 75 0001 70'),
    hex('1019 0004 4d515454 04 f6 003c 0001 61 0001 77 0001 78 0001 75 0001 70'),
    hex('1014 0004 4d515454 05 26 003c 00 0001 61 00 0001 77 0000'),
  ]
  t.deepEqual(
    seeds.map((seed) => verdict(parseConnect(seed))),
    Array(seeds.length).fill('connect'),
  )
  const pick = (below: number) => Math.floor(random() * below)
  let accepted = 0
  const wrong: string[] = []
  for (let run = 0; run < 200_000; run++) {
    let bytes = Buffer.from(seeds[run % seeds.length]!)
    for (let hits = pick(3); hits >= 0; hits--) {
      const at = pick(bytes.length)
      if (random() < 0.7) bytes[at] = random() < 0.5 ? pick(256) : bytes[at]! ^ (1 << pick(8))
      else if (random() < 0.5) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)])
      else bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([pick(256)]), bytes.subarray(at)])
      // Half of them with a length that fits, so that the depths are reached.
      if (random() < 0.5 && bytes.length > 2 && bytes.length < 129) bytes[1] = bytes.length - 2
    }
    if (bytes.length === 0) continue
    bytes[0] = 0x10
    const found = parseConnect(bytes)
    if ('kind' in found) continue
    accepted++
    if (!keepsLayout(bytes) || !isReadAlike(found)) wrong.push(bytes.toString('hex'))
    const again = parseConnect(
      rewriteConnect(found, { clientId: 'other', credentials: { username: 'u', password: 'p' } }),
    )
    if ('kind' in again || again.clientId !== 'other') wrong.push(`rewritten ${bytes.toString('hex')}`)
  }
  t.deepEqual(wrong.slice(0, 5), [])
  t.true(accepted > 10_000, `${accepted} accepted`)
})

test('a process that stops taking in devices does not wait for CONNECT', async (t) => {
  const stopping = new AbortController()
  const stream = new FakeStream()
  const reading = readConnect(stream, 1_000, 60_000, stopping.signal)
  stream.say('10')
  stopping.abort()
  t.like(await reading, { kind: 'refused', code: 'ERR_DRAINING', version: null })
  t.is(stream.listenerCount('data'), 0)
})

test('nothing of one CONNECT is left in the next, good or bad', (t) => {
  const plain = connectOf(V4).packet
  const full = connectOf(FULL).packet
  t.is(plain.username, undefined)
  t.is(plain.will, undefined)
  for (let cut = 2; cut < FULL.length; cut++) {
    // Whole by its length, and broken somewhere in the middle.
    const broken = Buffer.from(FULL)
    broken[cut] = broken[cut]! ^ 0xff
    parseConnect(broken)
    t.deepEqual(connectOf(V4).packet, plain, `after octet ${cut}`)
    t.deepEqual(connectOf(FULL).packet, full, `after octet ${cut}`)
  }
})

test('a parser in which anything went wrong is not used again, one that did well is', (t) => {
  const faults: Record<string, (parser: ReturnType<typeof mqttPacket.parser>) => number> = {
    'it throws': () => {
      throw new RangeError('out of range')
    },
    'it says that something is wrong': (parser) => {
      parser.emit('error', new Error('no such thing'))
      return 0
    },
    'it wants more': () => 3,
    'it finds no packet': () => 0,
  }
  for (const [what, fault] of Object.entries(faults)) {
    let made = 0
    const decode = connectDecoder(() => {
      const parser = mqttPacket.parser()
      if (++made === 1) parser.parse = () => fault(parser)
      return parser
    })
    t.throws(() => decode(hex(V4)), undefined, what)
    t.is(decode(hex(V4)).clientId, 'a', what)
    t.is(decode(FULL).clientId, 'dev', what)
    t.is(made, 2, what)
  }
})
