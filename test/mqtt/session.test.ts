import { once } from 'node:events'
import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import { type FailureCode, ProxyError } from '../../src/errors.ts'
import { chunked, hex, until } from './fakes.ts'
import { leavesNothing, OK4, OK5, served, V4, V5 } from './served.ts'

// --- before there is a broker

test('a refused identity closes in silence and never dials', async (t) => {
  const s = served(t, { outcome: { kind: 'denied', code: 'ERR_CERTIFICATE_REVOKED', detail: 'revoked' } })
  s.device.say(V5)
  t.is(await s.ended, 'ERR_CERTIFICATE_REVOKED')
  t.deepEqual([s.device.heard, s.device.finished, s.dials], ['', true, []])
  t.true(s.device.flowing, 'what the device says is drained, so that the close is no reset')
  // Counted on its own rung and on no other: it never came to CONNECT.
  t.deepEqual(s.told, ['identity x509 certificate_revoked'])
})

for (const [what, thrown] of [
  ['says so', new ProxyError('ERR_IDENTITY_FAULT', 'the registry is away')],
  ['throws anything', new TypeError('undefined is not a function')],
] as const) {
  test(`an authenticator that ${what} refuses, is counted as a fault, and nobody is dialled`, async (t) => {
    const s = served(t, {
      authenticate: async () => {
        throw thrown
      },
    })
    s.device.say(V5)
    t.is(await s.ended, 'ERR_IDENTITY_FAULT')
    t.deepEqual([s.device.heard, s.device.finished, s.dials], ['', true, []])
    t.deepEqual(s.told, ['identity x509 identity_fault'])
  })
}

test('a device that leaves while an authorizer is asked about it has left, and nothing else has failed', async (t) => {
  const asked = Promise.withResolvers<void>()
  const s = served(t, {
    connection: { admissions: [{ mode: 'E', port: 443, alpn: 'mqtt', protocol: 'mqtt', auth: 'custom' }] },
    authenticate: (signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason))
        asked.resolve()
      }),
  })
  s.device.say(V5)
  await asked.promise
  s.device.destroy()
  t.is(await s.ended, 'downstream')
  t.deepEqual(s.told, ['identity custom canceled', 'connect gone 5'])
  t.deepEqual(s.dials, [])
})

const neverDials = test.macro({
  async exec(t, said: string, code: FailureCode, heard: string) {
    const s = served(t)
    s.device.say(said)
    t.is(await s.ended, code)
    t.deepEqual([s.device.heard, s.device.finished, s.device.flowing, s.dials], [heard, true, true, []])
    t.is(s.trace.stage, 'connect')
  },
  title: (title, _, code: FailureCode, heard: string) =>
    `${title} is ${code}, hears ${heard || 'silence'}, and dials nobody`,
})

test('a reserved flag on 5', neverDials, '100e00044d5154540503003c00000161', 'ERR_CONNECT_MALFORMED', '2003008100')
test('a reserved flag on 3.1.1', neverDials, '100d00044d5154540403003c000161', 'ERR_CONNECT_MALFORMED', '')
test('PINGREQ first', neverDials, 'c000', 'ERR_NOT_MQTT', '')
test('level 6', neverDials, '100d00044d5154540602003c000161', 'ERR_PROTOCOL_VERSION', '20020001')
test('no client id', neverDials, '100c00044d5154540400003c0000', 'ERR_CLIENT_ID_INVALID', '20020002')

for (const [name, connect, connack] of [
  ['3.1.1', V4, '20020003'],
  ['5', V5, '2003008300'],
] as const) {
  test(`a way in that is not served says so after CONNECT, on ${name}`, async (t) => {
    const s = served(t, { unserved: true })
    await until(() => s.device.flowing)
    t.is(s.device.heard, '')
    s.device.say(connect)
    t.is(await s.ended, 'ERR_MODE_UNSERVED')
    t.deepEqual([s.device.heard, s.device.finished, s.dials], [connack, true, []])
  })
}

for (const [name, connect, connack] of [
  ['3.1.1', V4, '20020003'],
  ['5', V5, '2003008800'],
] as const) {
  test(`an unreachable broker is CONNACK ${connack} on ${name}`, async (t) => {
    const s = served(t, { open: () => Promise.reject(new ProxyError('ERR_BACKEND_REFUSED', 'nobody')) })
    s.device.say(connect)
    t.is(await s.ended, 'ERR_BACKEND_REFUSED')
    t.deepEqual([s.device.heard, s.device.finished, s.device.flowing], [connack, true, true])
    leavesNothing(t, s)
  })

  test(`a broker that ends before CONNACK is CONNACK ${connack} on ${name}`, async (t) => {
    for (const reset of [false, true]) {
      const s = served(t)
      s.device.say(connect)
      await until(() => s.broker.heard === connect)
      if (reset) s.broker.reset()
      else s.broker.say(null)
      await until(() => s.device.finished)
      t.is(s.device.heard, connack)
      s.device.say(null)
      t.is(await s.ended, 'ERR_BACKEND_LOST')
      t.is(s.told.filter((line) => line === `connect backend_lost ${name}`).length, 1)
      leavesNothing(t, s)
    }
  })

  test(`a broker that does not answer CONNECT in time is CONNACK ${connack} on ${name}`, async (t) => {
    const s = served(t, { limits: { connackTimeoutMs: 1 } })
    const finished = once(s.broker, 'finished')
    s.device.say(connect)
    await finished
    s.broker.say(null)
    s.device.say(null)
    t.is(await s.ended, 'ERR_BACKEND_TIMEOUT')
    t.is(s.device.heard, connack)
  })
}

test('a device that resets while a broker is looked for ends the search, and no broker is told', async (t) => {
  let aborted = false
  const s = served(t, {
    open: (signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          aborted = true
          reject(signal.reason)
        })
      }),
  })
  s.device.say(V5)
  await until(() => s.dials.length > 0)
  s.device.reset()
  t.is(await s.ended, 'downstream')
  t.true(aborted)
  t.is(s.broker.heard, '')
  t.true(s.told.includes('connect gone 5'))
})

test('a broker that is found just after the device left is let go untold', async (t) => {
  const found = Promise.withResolvers<void>()
  const s = served(t, { open: () => found.promise })
  s.device.say(V5)
  await until(() => s.dials.length > 0)
  s.device.reset()
  await until(() => s.device.destroyed)
  found.resolve()
  t.is(await s.ended, 'downstream')
  t.deepEqual([s.broker.heard, s.broker.destroyed], ['', true])
})

test('a device that ends its sending while a broker is looked for still gets what it asked for', async (t) => {
  const found = Promise.withResolvers<void>()
  const s = served(t, { open: () => found.promise })
  s.device.say(`${V4}e000`)
  await until(() => s.dials.length > 0)
  // A socket tells its end even while paused.
  s.device.readableEnded = true
  s.device.emit('end')
  found.resolve()
  await until(() => s.broker.finished)
  t.is(s.broker.heard, `${V4}e000`)
  s.broker.say(OK4, null)
  t.is(await s.ended, 'downstream')
  t.is(s.device.heard, OK4)
})

test('a shutdown while a broker is looked for is told in CONNACK', async (t) => {
  const s = served(t, {
    open: (signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
  })
  s.device.say(V5)
  await until(() => s.dials.length > 0)
  s.shutdown.abort(new ProxyError('ERR_DRAINING', 'shutdown'))
  t.is(await s.ended, 'ERR_DRAINING')
  t.is(s.device.heard, '2003008800')
})

// --- CONNECT to CONNACK

test('packets behind CONNECT go on once and in order, before CONNACK', async (t) => {
  const behind = '300400016100 3206000162000100 c000'.replaceAll(' ', '')
  for (const size of [1, 3, 16, 17, 18, 64]) {
    const s = served(t)
    s.device.say(...chunked(hex(`${V5}${behind}`), size))
    await until(() => s.broker.heard.length >= V5.length + behind.length)
    t.is(s.broker.heard, V5 + behind)
    t.is(s.device.heard, '')
    s.device.say('e000')
    await until(() => s.broker.heard.endsWith('e000'))
    t.is(s.broker.heard, `${V5}${behind}e000`)
  }
})

test('a fault right behind CONNECT is refused by CONNACK; the good bytes before it reach the broker', async (t) => {
  const s = served(t)
  s.device.say(`${V5}c000${V5}`)
  await until(() => s.device.finished && s.broker.finished)
  t.deepEqual([s.broker.heard, s.device.heard], [`${V5}c000`, '2003008200'])
  s.broker.say(null)
  s.device.say(null)
  t.is(await s.ended, 'ERR_PACKET_UNEXPECTED')
  leavesNothing(t, s)
})

test('the broker is told who it is by template, and never the device’s own user name', async (t) => {
  const s = served(t, { identity: { username: '${principal.id}', clientId: 'p-${clientId}', keepAlive: '0' } })
  s.device.say('101600044d515454 04c2003c 000161 00043f53444b 000170'.replaceAll(' ', ''))
  await until(() => s.broker.written.length > 0)
  t.is(s.broker.heard, '101500044d51545404820000 0003702d61 000461623132'.replaceAll(' ', ''))
  t.deepEqual(s.dials, ['p-a'])
})

test('after a CONNACK that refuses we say nothing more [MQTT-3.14.0-1]', async (t) => {
  const s = served(t)
  s.device.say(V5)
  await until(() => s.broker.written.length > 0)
  s.broker.say('2003008700', null)
  await until(() => s.device.finished)
  t.is(s.device.heard, '2003008700')
  s.device.say(null)
  t.is(await s.ended, 'upstream')
  t.true(s.told.includes('connect refused_by_broker 5'))
  leavesNothing(t, s)
})

// --- live

test('bytes and packets are those of the wire, split at every byte', async (t) => {
  const inbound = '3003000161 8206000100016100 c000 e000'.replaceAll(' ', '')
  const outbound = '9003000100 3003000161 d000'.replaceAll(' ', '')
  for (let split = 1; split < inbound.length / 2; split++) {
    const s = served(t)
    await s.connected(V4, OK4)
    s.broker.say(hex(outbound).subarray(0, split), hex(outbound).subarray(split))
    await until(() => s.device.heard === outbound)
    s.device.say(hex(inbound).subarray(0, split), hex(inbound).subarray(split), null)
    await until(() => s.broker.finished)
    t.is(s.broker.heard, V4 + inbound)
    s.broker.say(null)
    t.is(await s.ended, 'downstream')
    const { bytesIn, bytesOut, packetsIn, packetsOut, stage, clientId, mqttVersion, backend, upstream } = s.trace
    t.deepEqual([bytesIn, packetsIn], [(V4.length + inbound.length) / 2, 5])
    t.deepEqual([bytesOut, packetsOut], [(OK4.length + outbound.length) / 2, 4])
    t.deepEqual([stage, clientId, mqttVersion, backend, upstream], ['relay', 'a', 4, 'main', 'broker:1883'])
    leavesNothing(t, s)
  }
})

test('silence beyond the keep alive ends with DISCONNECT 0x8D, and the broker sees a loss [MQTT-3.1.2-22]', async (t) => {
  const s = served(t)
  await s.connected()
  for (let tick = 0; tick < 90; tick++) s.wheel.tick()
  t.is(s.device.heard, '')
  s.wheel.tick()
  t.deepEqual([s.device.heard, s.device.finished], ['e0028d00', true])
  t.deepEqual([s.broker.heard, s.broker.finished], [V5, true])
  s.device.say(null)
  s.broker.say(null)
  t.is(await s.ended, 'ERR_KEEP_ALIVE_TIMEOUT')
  leavesNothing(t, s)
})

test('the Server Keep Alive of CONNACK is what is enforced [MQTT-3.1.2-21]', async (t) => {
  const s = served(t)
  await s.connected(V5, '20060000 03 13000a'.replaceAll(' ', ''))
  for (let tick = 0; tick < 15; tick++) s.wheel.tick()
  t.false(s.device.finished)
  s.wheel.tick()
  t.is(s.device.heard, 'e0028d00')
})

test('a Server Keep Alive of zero turns the check off', async (t) => {
  const s = served(t)
  await s.connected(V5, '20060000 03 130000'.replaceAll(' ', ''))
  t.is(s.wheel.size, 0)
})

test('a device that is held by a slow broker since before CONNACK is not blamed for it', async (t) => {
  const s = served(t)
  s.broker.roomy = false
  s.device.say(V5, 'c000')
  await until(() => s.broker.heard === `${V5}c000`)
  t.false(s.device.flowing)
  s.broker.say(OK5)
  await until(() => s.device.heard === OK5)
  for (let tick = 0; tick < 500; tick++) s.wheel.tick()
  t.false(s.device.finished)
  s.broker.emit('drain')
  for (let tick = 0; tick < 91; tick++) s.wheel.tick()
  t.true(s.device.finished)
})

test('a device’s reset destroys the broker’s side at once', async (t) => {
  const s = served(t)
  await s.connected()
  s.device.reset()
  t.is(await s.ended, 'downstream')
  t.deepEqual([s.broker.destroyed, s.broker.finished], [true, false])
  leavesNothing(t, s)
})

test('a reset behind DISCONNECT is no loss: what was said still goes out', async (t) => {
  const s = served(t)
  await s.connected()
  s.device.say('e000')
  await until(() => s.broker.heard.endsWith('e000'))
  s.device.reset()
  await until(() => s.broker.finished)
  t.false(s.broker.destroyed)
  s.broker.say(null)
  t.is(await s.ended, 'downstream')
})

test('a device that ends its sending still gets its last messages', async (t) => {
  const s = served(t)
  await s.connected()
  s.device.say('300400016100', null)
  await until(() => s.broker.finished)
  s.broker.say('3003000162', '3003000163', null)
  t.is(await s.ended, 'downstream')
  t.is(s.device.heard, '30030001623003000163')
  t.true(s.device.finished)
})

test('a broker that is lost is DISCONNECT 0x80 on 5 and silence on 3.1.1', async (t) => {
  for (const [connect, connack, heard] of [
    [V5, OK5, 'e0028000'],
    [V4, OK4, ''],
  ] as const) {
    for (const reset of [false, true]) {
      const s = served(t)
      await s.connected(connect, connack)
      if (reset) s.broker.reset()
      else s.broker.say(null)
      await until(() => s.device.finished)
      t.is(s.device.heard, heard)
      s.device.say(null)
      t.is(await s.ended, 'upstream')
      leavesNothing(t, s)
    }
  }
})

test('a broker that says DISCONNECT itself, or ends after the device’s, is not spoken over', async (t) => {
  const own = served(t)
  await own.connected()
  own.broker.say('e0018b', null)
  await until(() => own.device.finished)
  t.is(own.device.heard, 'e0018b')
  const after = served(t)
  await after.connected()
  after.device.say('e000')
  await until(() => after.broker.heard.endsWith('e000'))
  after.broker.say(null)
  await until(() => after.device.finished)
  t.is(after.device.heard, '')
})

test('a drain says DISCONNECT 0x8B at a packet boundary, and nothing inside a packet', async (t) => {
  const packet = hex('3003000161')
  for (let said = 0; said <= packet.length; said++) {
    const s = served(t)
    await s.connected()
    if (said > 0) {
      s.broker.say(packet.subarray(0, said))
      // A header goes on when it is whole.
      if (said > 1) await until(() => s.device.heard.length === said * 2)
      else await setImmediate()
    }
    s.session().close('ERR_DRAINING')
    s.session().close('ERR_INTERNAL')
    const between = said < 2 || said === packet.length
    t.is(s.device.heard, (said > 1 ? packet.toString('hex', 0, said) : '') + (between ? 'e0028b00' : ''))
    t.deepEqual([s.device.finished, s.broker.finished, s.broker.heard], [true, true, V5])
    // What still comes from the broker has nowhere to go.
    s.broker.say(packet.subarray(said), null)
    s.device.say(null)
    t.is(await s.ended, 'ERR_DRAINING')
    leavesNothing(t, s)
  }
})

test('a drain before CONNACK is a CONNACK, told once', async (t) => {
  const s = served(t)
  s.device.say(V5)
  await until(() => s.broker.written.length > 0)
  s.session().close('ERR_DRAINING')
  s.session().close('ERR_DRAINING')
  t.is(s.device.heard, '2003008800')
  s.device.say(null)
  s.broker.say(null)
  t.is(await s.ended, 'ERR_DRAINING')
  t.is(s.told.filter((line) => line === 'connect draining 5').length, 1)
})

test('one CONNECT has one result, whatever happens after the broker was lost', async (t) => {
  const s = served(t)
  s.device.say(V5)
  await until(() => s.broker.written.length > 0)
  s.broker.say(null)
  await until(() => s.device.finished)
  s.session().close('ERR_BACKEND_TIMEOUT')
  s.device.say('00')
  s.device.say(null)
  t.is(await s.ended, 'ERR_BACKEND_LOST')
  t.deepEqual(
    s.told.filter((line) => line.startsWith('connect ')),
    ['connect backend_lost 5'],
  )
})

test('a drain within the broker’s CONNACK is a CONNACK of ours: none of its bytes had gone on', async (t) => {
  const s = served(t)
  s.device.say(V5)
  await until(() => s.broker.written.length > 0)
  s.broker.say('200300')
  await setImmediate()
  s.session().close('ERR_DRAINING')
  t.is(s.device.heard, '2003008800')
})

test('a packet that a device may not send ends the session with its reason', async (t) => {
  const s = served(t)
  await s.connected()
  s.device.say(`300400016100${V5}c000`)
  await until(() => s.device.finished)
  t.deepEqual([s.broker.heard, s.device.heard], [`${V5}300400016100`, 'e0028200'])
  s.device.say(null)
  s.broker.say(null)
  t.is(await s.ended, 'ERR_PACKET_UNEXPECTED')
})

test('a packet that a broker may not send ends the session, and the device is told', async (t) => {
  const s = served(t)
  await s.connected()
  s.broker.say(`3003000161${OK5}`)
  await until(() => s.device.finished)
  t.is(s.device.heard, '3003000161e0028000')
  s.device.say(null)
  s.broker.say(null)
  t.is(await s.ended, 'ERR_BACKEND_PROTOCOL')
})

test('a CONNACK that is none is not forwarded, and ours is told in its place', async (t) => {
  const s = served(t)
  s.device.say(V5)
  await until(() => s.broker.written.length > 0)
  s.broker.say('2003', '020000')
  await until(() => s.device.finished)
  t.is(s.device.heard, '2003008800')
  s.device.say(null)
  s.broker.say(null)
  t.is(await s.ended, 'ERR_BACKEND_PROTOCOL')
})
