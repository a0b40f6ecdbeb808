import test from 'ava'
import fc from 'fast-check'
import mqttPacket, { type IConnackPacket, type IConnectPacket, type Packet } from 'mqtt-packet'
import { readConnack, rewriteConnack } from '../../src/mqtt/connack.ts'
import { type Connect, parseConnect } from '../../src/mqtt/connect.ts'
import { connackEdits, keepAliveInForce, limitChanges, type Terms, termsOf } from '../../src/mqtt/in-force.ts'
import { AWS_IOT_RULES, OPEN_RULES, rulesOf, type SessionRules } from '../../src/mqtt/limits.ts'
import { PROPERTY } from '../../src/mqtt/properties.ts'
import { rewriteConnect } from '../../src/mqtt/rewrite.ts'
import { authenticatedAs } from '../support/identity.ts'
import { until } from './fakes.ts'
import { leavesNothing, OK4, OK5, PRINCIPAL, served, V5 } from './served.ts'

const spaced = (octets: string): string => octets.replaceAll(' ', '')
const AWS = { domain: { rules: AWS_IOT_RULES } }

// --- what the bytes are

/** Keep alive on 3.1.1 as the device says it and as the broker hears it. */
for (const [asked, sent] of [
  ['0000', '04b0'],
  ['0001', '001e'],
  ['001d', '001e'],
  ['001e', '001e'],
  ['04b0', '04b0'],
  ['04b1', '04b0'],
  ['ffff', '04b0'],
] as const) {
  test(`a keep alive of ${Number.parseInt(asked, 16)} s is ${Number.parseInt(sent, 16)} s under aws-iot, and a 5 device is told when it is another`, async (t) => {
    const told = asked === sent ? '' : `13${sent}`
    const old = served(t, AWS)
    t.is(await old.connected(`100d00044d5154540402${asked}000161`, OK4), OK4)
    t.is(old.broker.heard, `100d00044d5154540402${sent}000161`)
    const s = served(t, AWS)
    const answer = await s.connected(`100e00044d5154540502${asked}00000161`, OK5)
    t.is(answer.includes('13'), told !== '')
    t.true(answer.includes(told))
    // Receive Maximum 100 is put where none was.
    t.is(s.broker.heard, `101100044d5154540502${sent}03210064000161`)
  })
}

test('under aws-iot a CONNACK without properties tells all that holds', async (t) => {
  const s = served(t, AWS)
  const told = ['210064', '2401', '2700024800', '2900'].join('')
  t.is(await s.connected(V5, OK5), `200f 0000 0c ${told}`.replaceAll(' ', ''))
})

test('a broker that is stricter is believed', async (t) => {
  const s = served(t, AWS)
  const told = spaced('21000a 2400 2700000400 220004 1300 0a 2900 1f000161')
  t.is(await s.connected(V5, `2019000016${told}`), `2019000016${told}`)
})

test('a broker that is laxer is spoken over in place, and the rest of its words stay', async (t) => {
  const s = served(t, AWS)
  const said = spaced(
    '1f0002 6f6b 210fff 2600016100 0162 220010 2701000000 2600016100 0163 1304b1 2901 120001 61 1a000172',
  )
  const left = spaced(
    '1f0002 6f6b 210064 2600016100 0162 220008 2700024800 2600016100 0163 1304b0 2900 120001 61 1a000172 2401',
  )
  const length = (octets: string) => (octets.length / 2).toString(16).padStart(2, '0')
  t.is(
    await s.connected(V5, `20${length(`000000${said}`)}0000${length(said)}${said}`),
    `20${length(`000000${left}`)}0000${length(left)}${left}`,
  )
})

test('under open nothing of CONNECT and CONNACK is changed', async (t) => {
  const s = served(t)
  const connect = spaced('1020 00044d515454 05 02 0000 12 11ffffffff 21ffff 22ffff 27ffffffff 1901 000161')
  const connack = spaced('200b 0000 08 21ffff 22ffff 2900')
  t.is(await s.connected(connect, connack), connack)
  t.is(s.broker.heard, connect)
})

test('a refusal of the broker goes on as it is', async (t) => {
  const s = served(t, AWS)
  t.is(await s.connected(V5, '2003008700'), '2003008700')
})

test('a Session Expiry Interval over the most is lowered, and the device is told what it got', async (t) => {
  const s = served(t, AWS)
  const connect = (expiry: string, more: string, length: string) =>
    spaced(`${length} 00044d515454 05 02 003c ${more} 11${expiry} 210064 000161`)
  const answer = await s.connected(spaced('1016 00044d515454 05 02 003c 08 11ffffffff 210065 000161'), OK5)
  t.is(s.broker.heard, connect('00000e10', '08', '1016'))
  t.true(answer.includes('1100000e10'))
})

test('the expiry of a will is at least a second and at most seven days under aws-iot', async (t) => {
  for (const [asked, sent] of [
    ['00000000', '00000001'],
    ['00093a80', '00093a80'],
    ['ffffffff', '00093a80'],
  ] as const) {
    const s = served(t, AWS)
    const connect = (expiry: string) =>
      spaced(`101e 00044d515454 05 06 003c 03 210064 000161 07 02${expiry} 0101 0001 77 0000`)
    s.device.say(connect(asked))
    await until(() => s.broker.written.length > 0)
    t.is(s.broker.heard, connect(sent))
  }
})

test('where deliveries are judged, the broker may use no topic alias toward the device', async (t) => {
  const closed = { allows: (action: string) => action === 'iot:Connect', allowsAll: () => false }
  const s = served(t, { outcome: authenticatedAs(PRINCIPAL, { grants: { permit: () => closed } }) })
  await s.connected(spaced('1011 00044d515454 05 02 003c 03 22000a 000161'), OK5)
  t.is(s.broker.heard, spaced('1011 00044d515454 05 02 003c 03 220000 000161'))
})

test('keep alive is enforced at one and a half times what holds, not what was asked [checklist 23]', async (t) => {
  const s = served(t, AWS)
  await s.connected('100e00044d5154540502000a00000161', OK5)
  for (let tick = 0; tick < 45; tick++) s.wheel.tick()
  t.false(s.device.finished)
  s.wheel.tick()
  t.is(s.device.heard, 'e0028d00')
  t.is(await s.over(), 'ERR_KEEP_ALIVE_TIMEOUT')
  leavesNothing(t, s)
})

test('a broker that is not to check keep alive hears 0, and the device is held to its own', async (t) => {
  const s = served(t, { ...AWS, identity: { keepAlive: '0' } })
  t.false((await s.connected(V5, OK5)).includes('13'))
  t.is(s.broker.heard, '101100044d5154540502000003210064000161')
  for (let tick = 0; tick < 91; tick++) s.wheel.tick()
  t.is(s.device.heard, 'e0028d00')
})

test('a broker that says more than the most is spoken over even where the device asked for the most', async (t) => {
  const s = served(t, { domain: { rules: rulesOf('open', { keepAliveMost: 60, sessionExpirySeconds: 60 }) } })
  const connect = spaced('1013 00044d515454 05 02 003c 05 110000003c 000161')
  t.is(await s.connected(connect, spaced('200b 0000 08 131388 1100001388')), spaced('200b 0000 08 13003c 110000003c'))
})

// --- CONNACK and the packets that a device takes

test('a CONNACK of ours that is too large for its device loses what is optional', async (t) => {
  const s = served(t, AWS)
  const s512 = spaced('1013 00044d515454 05 02 003c 05 2700000200 000161')
  // 510 bytes with its reason string; what holds would make it 522.
  const reason = `1f01f4${'72'.repeat(500)}`
  const answer = await s.connected(s512, `20fb03 0000 f703 ${reason}`.replaceAll(' ', ''))
  t.false(answer.includes('7272'))
  t.true(answer.includes('2401'))
})

test('a device that takes no CONNACK that says what holds is refused', async (t) => {
  const s = served(t, { domain: { rules: rulesOf('aws-iot', { clientPacketLeast: null }) } })
  s.device.say(spaced('1013 00044d515454 05 02 003c 05 270000000a 000161'))
  await until(() => s.broker.written.length > 0)
  s.broker.say(OK5)
  await until(() => s.device.finished)
  t.is(s.device.heard, '2003009500')
  t.is(await s.over(), 'ERR_PACKET_TOO_LARGE')
  t.deepEqual(
    s.told.filter((line) => line.startsWith('connect')),
    ['connect packet_too_large 5'],
  )
  leavesNothing(t, s)
})

// --- another decoder's view of everything

const u16 = fc.integer({ min: 1, max: 65_535 })
const u32 = fc.integer({ min: 1, max: 0xffffffff })
const text = fc.string({ minLength: 1, maxLength: 12, unit: fc.constantFrom('a', 'é', '中', '/', '0') })
const limit = (numbers: fc.Arbitrary<number>) => fc.option(numbers, { nil: null })

const someRules: fc.Arbitrary<SessionRules> = fc
  .record({
    maxQoS: fc.constantFrom<0 | 1 | 2>(0, 1, 2),
    packetBytes: fc.integer({ min: 128, max: 268_435_455 }),
    receiveMaximum: limit(u16),
    sendMaximum: limit(u16),
    topicAliasMaximum: limit(fc.integer({ min: 0, max: 65_535 })),
    keepAliveLeast: limit(fc.integer({ min: 1, max: 100 })),
    keepAliveMost: limit(fc.integer({ min: 100, max: 65_535 })),
    sessionExpirySeconds: limit(fc.integer({ min: 0, max: 0xffffffff })),
    messageExpirySeconds: limit(u32),
    subscriptionIdentifiers: fc.boolean(),
  })
  .map((own) => rulesOf('open', own))

const properties = fc.record(
  {
    sessionExpiryInterval: u32,
    receiveMaximum: u16,
    maximumQoS: fc.constantFrom(0, 1),
    retainAvailable: fc.boolean(),
    maximumPacketSize: u32,
    topicAliasMaximum: fc.integer({ min: 0, max: 65_535 }),
    reasonString: text,
    wildcardSubscriptionAvailable: fc.boolean(),
    subscriptionIdentifiersAvailable: fc.boolean(),
    sharedSubscriptionAvailable: fc.boolean(),
    serverKeepAlive: fc.integer({ min: 0, max: 65_535 }),
    responseInformation: text,
    serverReference: text,
    authenticationMethod: text,
    userProperties: fc.dictionary(fc.constantFrom('a', 'b', 'c'), text, { minKeys: 1, noNullPrototype: true }),
  },
  { requiredKeys: [] },
)

function decoded<P extends Packet>(bytes: Buffer): P {
  const parser = mqttPacket.parser({ protocolVersion: 5 })
  let found: Packet | null = null
  parser.on('packet', (packet) => {
    found = packet
  })
  parser.on('error', (error) => {
    throw error
  })
  parser.parse(bytes)
  if (found === null) throw new Error('no packet')
  // The test knows what it has encoded.
  return found as P
}

const connect5 = (changes: Partial<IConnectPacket>): Connect => {
  const bytes = mqttPacket.generate({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 5,
    clean: true,
    keepalive: 60,
    clientId: 'a',
    ...changes,
  })
  const connect = parseConnect(bytes)
  if ('kind' in connect) throw new Error(JSON.stringify(connect))
  return connect
}

const IDS = { device: 'a', assigned: false, prefix: '' }

test('CONNACK merged with ours, as another decoder reads it: of each limit the stricter, and nothing lost', (t) => {
  fc.assert(
    fc.property(
      someRules,
      properties,
      fc.integer({ min: 0, max: 65_535 }),
      fc.integer({ min: 0, max: 0xffffffff }),
      (rules, said, keepalive, sessionExpiryInterval) => {
        const connect = connect5({ keepalive, properties: { sessionExpiryInterval } })
        const terms = termsOf(connect, IDS, rules, true)
        const packet = mqttPacket.generate(
          { cmd: 'connack', sessionPresent: true, reasonCode: 0, properties: said },
          { protocolVersion: 5 },
        )
        const header = packet[1]! & 0x80 ? 3 : 2
        const body = packet.subarray(header)
        const connack = readConnack(body, 5)!
        const whole = rewriteConnack(body, 5, connackEdits(terms, connack))
        const told = decoded<IConnackPacket>(whole)
        const found = { ...told.properties }
        const broker = { ...decoded<IConnackPacket>(packet).properties }

        t.true(told.sessionPresent)
        t.is(found.receiveMaximum ?? 65_535, Math.min(broker.receiveMaximum ?? 65_535, rules.receiveMaximum ?? 65_535))
        t.is(found.maximumQoS ?? 2, Math.min(broker.maximumQoS ?? 2, rules.maxQoS))
        t.is(found.topicAliasMaximum ?? 0, Math.min(broker.topicAliasMaximum ?? 0, rules.topicAliasMaximum ?? 65_535))
        const most = rules.packetBytes
        t.is(found.maximumPacketSize ?? 268_435_455, Math.min(broker.maximumPacketSize ?? 268_435_455, most))
        t.is(
          found.subscriptionIdentifiersAvailable ?? true,
          (broker.subscriptionIdentifiersAvailable ?? true) && rules.subscriptionIdentifiers,
        )
        t.is(found.serverKeepAlive ?? keepalive, keepAliveInForce(terms, connack))
        const granted = Math.min(sessionExpiryInterval, rules.sessionExpirySeconds ?? 0xffffffff)
        const expiry = Math.min(broker.sessionExpiryInterval ?? granted, rules.sessionExpirySeconds ?? 0xffffffff)
        t.is(found.sessionExpiryInterval ?? sessionExpiryInterval, expiry)
        for (const kept of [
          'retainAvailable',
          'reasonString',
          'wildcardSubscriptionAvailable',
          'sharedSubscriptionAvailable',
          'responseInformation',
          'serverReference',
          'authenticationMethod',
        ] as const) {
          t.deepEqual(found[kept], broker[kept])
        }
        t.deepEqual({ ...found.userProperties }, { ...broker.userProperties })
      },
    ),
    { numRuns: 2_000 },
  )
})

test('CONNECT under any limits, as another decoder reads it: lowered where it is over, and nothing lost', (t) => {
  const asked = fc.record(
    {
      sessionExpiryInterval: fc.integer({ min: 0, max: 0xffffffff }),
      receiveMaximum: u16,
      maximumPacketSize: u32,
      topicAliasMaximum: fc.integer({ min: 0, max: 65_535 }),
      requestResponseInformation: fc.boolean(),
      requestProblemInformation: fc.boolean(),
      userProperties: fc.dictionary(fc.constantFrom('a', 'b', 'c'), text, { minKeys: 1, noNullPrototype: true }),
    },
    { requiredKeys: [] },
  )
  const will = fc.record({
    topic: fc.constant('w'),
    payload: fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)),
    qos: fc.constantFrom<0 | 1 | 2>(0, 1, 2),
    retain: fc.boolean(),
    properties: fc.record(
      { messageExpiryInterval: fc.integer({ min: 0, max: 0xffffffff }), contentType: text },
      { requiredKeys: [] },
    ),
  })
  fc.assert(
    fc.property(
      someRules,
      asked,
      fc.option(will, { nil: undefined }),
      fc.integer({ min: 0, max: 65_535 }),
      fc.boolean(),
      (rules, wanted, left, keepalive, receiveIsOpen) => {
        const connect = connect5({ keepalive, properties: wanted, ...(left !== undefined && { will: left }) })
        const terms: Terms = termsOf(connect, IDS, rules, receiveIsOpen)
        const sent = decoded<IConnectPacket>(rewriteConnect(connect, limitChanges(connect, terms, true)))
        const before = decoded<IConnectPacket>(connect.bytes)
        const found = { ...sent.properties }
        const original = { ...before.properties }

        t.is(sent.keepalive, terms.keepAlive.ours)
        t.is(
          found.sessionExpiryInterval ?? 0,
          Math.min(original.sessionExpiryInterval ?? 0, rules.sessionExpirySeconds ?? 0xffffffff),
        )
        t.is(found.receiveMaximum ?? 65_535, Math.min(original.receiveMaximum ?? 65_535, rules.sendMaximum ?? 65_535))
        t.is(found.topicAliasMaximum ?? 0, receiveIsOpen ? (original.topicAliasMaximum ?? 0) : 0)
        const expiry = original === undefined ? undefined : before.will?.properties?.messageExpiryInterval
        const most = rules.messageExpirySeconds
        t.is(
          sent.will?.properties?.messageExpiryInterval,
          expiry === undefined || most === null ? expiry : Math.min(Math.max(1, expiry), most),
        )
        for (const kept of ['maximumPacketSize', 'requestResponseInformation', 'requestProblemInformation'] as const) {
          t.is(found[kept], original[kept])
        }
        t.deepEqual({ ...found.userProperties }, { ...original.userProperties })
        t.deepEqual(
          [sent.clientId, sent.clean, sent.will?.topic, sent.will?.payload],
          [before.clientId, before.clean, before.will?.topic, before.will?.payload],
        )
        t.is(sent.will?.properties?.contentType, before.will?.properties?.contentType)
      },
    ),
    { numRuns: 2_000 },
  )
})

test('without limits CONNECT is the very bytes that came', (t) => {
  const connect = connect5({ properties: { receiveMaximum: 10, topicAliasMaximum: 5 } })
  t.is(rewriteConnect(connect, limitChanges(connect, termsOf(connect, IDS, OPEN_RULES, true), true)), connect.bytes)
})

for (const [ours, said, held, why] of [
  [2, 65_535, 2, 'its longest is no reason to wait so long'],
  [1_200, 60, 60, 'a broker that insists on less cuts by that'],
  [2, null, 2, 'without a word it is the device that counts'],
  [0, 65_535, 65_535, 'a device that asked for none pings for the broker'],
  [2, 0, 2, 'none is not longer than ours'],
] as const) {
  test(`a broker that is asked for no keep alive and says ${said}: ${ours} is held to ${held}, ${why}`, (t) => {
    const terms = termsOf(connect5({ keepalive: ours }), IDS, OPEN_RULES, true, false)
    const packet = mqttPacket.generate(
      {
        cmd: 'connack',
        sessionPresent: false,
        reasonCode: 0,
        properties: said === null ? {} : { serverKeepAlive: said },
      },
      { protocolVersion: 5 },
    )
    const connack = readConnack(packet.subarray(2), 5)!
    t.is(keepAliveInForce(terms, connack), held)
    const told = connackEdits(terms, connack).get(PROPERTY.serverKeepAlive) ?? said ?? ours
    t.is(told, held)
  })
}
