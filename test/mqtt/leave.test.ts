import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import { ProxyError } from '../../src/errors.ts'
import { OPEN_RULES } from '../../src/mqtt/limits.ts'
import type { Parting } from '../../src/mqtt/session-contract.ts'
import { hex, until } from './fakes.ts'
import { leavesNothing, OK4, OK5, served, V4, V5 } from './served.ts'

/** Long enough that no test sees its end. */
const PATIENT: Parting = { code: 'ERR_DRAINING', serverReference: null, patienceMs: 60_000 }
const SHORT: Parting = { ...PATIENT, patienceMs: 1 }

/** Topic `a`, packet id 1. */
const PUBLISH1 = '3206 000161 0001 00'
const PUBLISH2 = '3406 000161 0001 00'

const plain = (octets: string): string => octets.replaceAll(' ', '')

test('who owes nothing is told at once', async (t) => {
  const s = served(t)
  await s.connected()
  s.session().leave(PATIENT)
  t.deepEqual([s.device.heard, s.device.finished, s.broker.finished], ['e0028b00', true, true])
  await s.over()
  leavesNothing(t, s)
})

test('a publish that is under way is answered first, and what comes behind it goes no further', async (t) => {
  const s = served(t)
  await s.connected()
  s.device.say(plain(PUBLISH1))
  await until(() => s.broker.heard.endsWith(plain(PUBLISH1)))
  t.is(s.session().owed, 1)
  s.session().leave(PATIENT)
  t.false(s.device.flowing, 'it is not read any more')
  s.device.say('32060001610002 00')
  await setImmediate()
  t.is(s.device.heard, '')
  s.broker.say('40020001')
  await until(() => s.device.finished)
  t.is(s.device.heard, '40020001e0028b00')
  t.is(s.broker.heard, V5 + plain(PUBLISH1), 'the second one was neither passed on nor acknowledged')
  t.is(await s.over(), 'ERR_DRAINING')
  leavesNothing(t, s)
})

test('QoS 2 is waited for until its next answer, whichever that is', async (t) => {
  for (const [said, answer] of [
    [PUBLISH2, '50020001'],
    ['62020001', '70020001'],
  ] as const) {
    const s = served(t)
    await s.connected()
    s.device.say(plain(said))
    await until(() => s.broker.heard.endsWith(plain(said)))
    s.session().leave(PATIENT)
    t.is(s.device.heard, '')
    s.broker.say(answer)
    await until(() => s.device.finished)
    t.is(s.device.heard, `${answer}e0028b00`)
    await s.over()
  }
})

test('a packet that is under way goes on to its end, and nothing behind it, wherever chunks cut', async (t) => {
  const packet = hex(PUBLISH1)
  const next = hex('3206 000162 0002 00')
  for (let cut = 3; cut < packet.length; cut++) {
    const s = served(t)
    await s.connected()
    s.device.say(packet.subarray(0, cut))
    await until(() => s.device.flowing && s.broker.heard.length > V5.length)
    s.session().leave(PATIENT)
    t.true(s.device.flowing, 'its rest is still read')
    s.device.say(Buffer.concat([packet.subarray(cut), next]))
    await until(() => !s.device.flowing)
    t.is(s.broker.heard, V5 + packet.toString('hex'))
    s.broker.say('40020001')
    await until(() => s.device.finished)
    t.is(s.device.heard, '40020001e0028b00')
    await s.over()
  }
})

test('a packet of which nothing has gone on stays here', async (t) => {
  const s = served(t)
  await s.connected()
  s.device.say('32')
  await setImmediate()
  s.session().leave(PATIENT)
  t.deepEqual([s.device.heard, s.broker.heard], ['e0028b00', V5])
  await s.over()
})

test('the farewell waits for the end of a delivery, and what follows it is not begun', async (t) => {
  const delivery = hex('3005 000161 2a2b')
  const s = served(t)
  await s.connected()
  s.broker.say(delivery.subarray(0, 4))
  await until(() => s.device.heard.length === 8)
  s.session().leave(PATIENT)
  t.false(s.device.finished)
  s.broker.say(Buffer.concat([delivery.subarray(4), delivery]))
  await until(() => s.device.finished)
  t.is(s.device.heard, `${delivery.toString('hex')}e0028b00`)
  await s.over()
})

test('deliveries go on while an answer is awaited', async (t) => {
  const s = served(t)
  await s.connected()
  s.device.say(plain(PUBLISH1))
  await until(() => s.broker.heard.endsWith(plain(PUBLISH1)))
  s.session().leave(PATIENT)
  s.broker.say('3003000161', '3003000162', '40020001')
  await until(() => s.device.finished)
  t.is(s.device.heard, '3003000161300300016240020001e0028b00')
  await s.over()
})

test('a broker that does not answer in time keeps nobody', async (t) => {
  const s = served(t)
  await s.connected()
  s.device.say(plain(PUBLISH1))
  await until(() => s.broker.heard.endsWith(plain(PUBLISH1)))
  s.session().leave(SHORT)
  await until(() => s.device.finished)
  t.is(s.device.heard, 'e0028b00')
  t.is(await s.over(), 'ERR_DRAINING')
  leavesNothing(t, s)
})

test('when the time is over the farewell still stands between two packets', async (t) => {
  const delivery = hex('3005 000161 2a2b')
  const s = served(t)
  await s.connected()
  s.device.say(plain(PUBLISH1))
  await until(() => s.broker.heard.endsWith(plain(PUBLISH1)))
  s.broker.say(delivery.subarray(0, 4))
  await until(() => s.device.heard.length === 8)
  s.session().leave({ ...PATIENT, patienceMs: 1 })
  await new Promise((resolve) => setTimeout(resolve, 5))
  s.broker.say(Buffer.concat([delivery.subarray(4), delivery]))
  await until(() => s.device.finished)
  t.is(s.device.heard, `${delivery.toString('hex')}e0028b00`)
  await s.over()
})

test('a publish that we answered ourselves is owed nothing', async (t) => {
  const s = served(t, {
    domain: { rules: { ...OPEN_RULES, publishesPerSecond: 1 } },
  })
  await s.connected()
  s.device.say(plain(PUBLISH1), '32060001610002 00', '34060001610003 00')
  await until(() => s.device.heard.includes('0003'))
  t.is(s.session().owed, 1)
  s.session().leave(PATIENT)
  s.broker.say('40020001')
  await until(() => s.device.finished)
  t.true(s.device.heard.endsWith('40020001e0028b00'))
  await s.over()
})

test('answers that nobody asked for are not counted against those to come', async (t) => {
  const s = served(t)
  await s.connected()
  s.broker.say('40020009')
  await until(() => s.device.heard === '40020009')
  s.device.say(plain(PUBLISH1))
  await until(() => s.broker.heard.endsWith(plain(PUBLISH1)))
  t.is(s.session().owed, 1)
  await s.over()
})

test('a device of 3.1.1 is closed after its answer, without a packet that it does not know', async (t) => {
  const s = served(t)
  await s.connected(V4, OK4)
  s.device.say('320500016100 01')
  await until(() => s.broker.heard.length > V4.length)
  s.session().leave({ ...PATIENT, serverReference: 'eu2:8883' })
  s.broker.say('40020001')
  await until(() => s.device.finished)
  t.is(s.device.heard, '40020001')
  await s.over()
})

test('with another server named it is DISCONNECT 0x9C with Server Reference [MQTT 5.0 §3.14.2.2.5]', async (t) => {
  const s = served(t)
  await s.connected()
  s.session().leave({ ...PATIENT, serverReference: 'eu2:1' })
  t.is(s.device.heard, `e00a9c081c0005${Buffer.from('eu2:1').toString('hex')}`)
  await s.over()
})

test('a packet larger than the device takes is not sent: it hears 0x8B [MQTT-3.1.2-24]', async (t) => {
  // Maximum Packet Size 11; the one with the reference has 12 bytes.
  const v5 = '101300044d5154540502003c05270000000b000161'
  for (const [most, heard] of [
    [11, 'e0028b00'],
    [12, `e00a9c081c0005${Buffer.from('eu2:1').toString('hex')}`],
  ] as const) {
    const s = served(t)
    await s.connected(v5.replace('0000000b', most.toString(16).padStart(8, '0')), OK5)
    s.session().leave({ ...PATIENT, serverReference: 'eu2:1' })
    t.is(s.device.heard, heard)
    await s.over()
  }
})

test('before CONNACK it is CONNACK 0x9C with Server Reference, at once [MQTT 5.0 §3.2.2.3.16]', async (t) => {
  const s = served(t)
  s.device.say(V5)
  await until(() => s.broker.written.length > 0)
  s.session().leave({ ...PATIENT, serverReference: 'eu2:1' })
  t.is(s.device.heard, `200b009c081c0005${Buffer.from('eu2:1').toString('hex')}`)
  await s.over()
})

for (const [what, connect, reference, heard] of [
  ['5 hears 0x9C and where to go', V5, 'eu2:1', `200b009c081c0005${Buffer.from('eu2:1').toString('hex')}`],
  ['5 hears 0x88 where there is nowhere to go', V5, null, '2003008800'],
  ['3.1.1 hears 3', V4, 'eu2:1', '20020003'],
] as const) {
  test(`who is turned away on ${what}, and nobody is dialled`, async (t) => {
    const s = served(t)
    s.handler.turnAway({ code: 'ERR_DRAINING', serverReference: reference })
    s.device.say(connect)
    t.is(await s.ended, 'ERR_DRAINING')
    t.deepEqual([s.device.heard, s.device.finished, s.dials], [heard, true, []])
    leavesNothing(t, s)
  })
}

test('somebody who looks for a broker when all are turned away is told where to go', async (t) => {
  const s = served(t, {
    open: (signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
  })
  s.device.say(V5)
  await until(() => s.dials.length > 0)
  s.handler.turnAway({ code: 'ERR_DRAINING', serverReference: 'eu2:1' })
  s.shutdown.abort(new ProxyError('ERR_DRAINING', 'shutting down'))
  t.is(await s.ended, 'ERR_DRAINING')
  t.is(s.device.heard, `200b009c081c0005${Buffer.from('eu2:1').toString('hex')}`)
})

test('a WebSocket is told that we go away', async (t) => {
  const s = served(t)
  await s.connected()
  Object.assign(s.device, { closeCode: 1000 })
  s.session().leave(PATIENT)
  t.is((s.device as { closeCode?: number }).closeCode, 1001)
  await s.over()
})

test('who has left meanwhile is asked nothing', async (t) => {
  const s = served(t)
  await s.connected()
  const session = s.session()
  session.leave({ ...PATIENT, patienceMs: 0 })
  t.true(session.gone)
  session.leave(PATIENT)
  await s.over()
  session.leave(PATIENT)
  t.is(s.device.heard, 'e0028b00')
  leavesNothing(t, s)
})
