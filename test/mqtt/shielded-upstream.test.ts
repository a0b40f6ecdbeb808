import { setImmediate } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import type { AuthorizedConnection } from '../../src/connection.ts'
import { ProxyError } from '../../src/errors.ts'
import type { ShieldOutcome } from '../../src/mqtt/shield-outcomes.ts'
import { type Pacer, type ShieldedOptions, ShieldedUpstream } from '../../src/mqtt/shielded-upstream.ts'
import { FakeStream, hex } from './fakes.ts'

/** CONNECT of `d`: 3.1.1 that keeps its session; MQTT 5 with Clean Start and a Session Expiry Interval of 600 s. */
const CONNECT4 = '100d 0004 4d515454 04 00 003c 0001 64'
const CONNECT5 = '1013 0004 4d515454 05 02 003c 05 1100000258 0001 64'
const CONNECT5_ASKING = '1013 0004 4d515454 05 00 003c 05 1100000258 0001 64'
const CONNACK4 = '2002 00 00'
const CONNACK4_PRESENT = '2002 01 00'
/** QoS 1 to topic `a` with packet id 1 and payload `x`. */
const PUBLISH1 = '3206 0001 61 0001 78'
const PUBLISH1_DUP = '3a06 0001 61 0001 78'
const PUBLISH2 = '3206 0001 61 0002 79'
const PUBLISH2_DUP = '3a06 0001 61 0002 79'
const PUBACK1 = '4002 0001'
const SUBSCRIBE = '8206 0007 0001 61 01'
const SUBACK = '9003 0007 01'

const plain = (...octets: string[]): string => octets.join('').replace(/\s/g, '')

interface RigOptions {
  readonly version?: 4 | 5
  readonly connect?: string
  readonly connack?: string
  readonly cleanStart?: boolean
  readonly enhancedAuth?: boolean
  readonly bufferBytes?: number
  readonly sessionExpirySeconds?: number
}

/** A session whose broker has accepted it, the broker under the test's hand, and what the relay would see. */
async function rig(options: RigOptions = {}) {
  const { version = 4, connack = CONNACK4 } = options
  const first = new FakeStream()
  const next: (FakeStream | ProxyError)[] = []
  const outcomes: ShieldOutcome[] = []
  const told: string[] = []
  const clock = { now: 0 }
  const pacer: Pacer = {
    isClosing: false,
    now: () => clock.now,
    arrived: (peer) => told.push(`arrived ${peer}`),
    departed: (peer) => told.push(`departed ${peer}`),
    lost: (peer) => told.push(`lost ${peer}`),
    held: () => told.push('held'),
    over: (_, outcome) => outcomes.push(outcome),
    notHeld: (outcome) => outcomes.push(outcome),
  }
  const shielded = new ShieldedUpstream({ stream: first, peer: 'one:1883' }, {
    backend: {
      async open() {
        const found = next.shift()
        if (found === undefined || found instanceof ProxyError)
          throw found ?? new ProxyError('ERR_BACKEND_REFUSED', 'no')
        return { stream: found, peer: 'two:1883' }
      },
    },
    pacer,
    connection: {} as AuthorizedConnection,
    version,
    packet: hex(options.connect ?? (version === 4 ? CONNECT4 : CONNECT5)),
    cleanStart: options.cleanStart ?? false,
    enhancedAuth: options.enhancedAuth ?? false,
    asked: { keepAliveSeconds: 60, sessionExpirySeconds: options.sessionExpirySeconds ?? 600 },
    bufferBytes: options.bufferBytes ?? 1_024,
    answerTimeoutMs: 10_000,
    moved: (peer) => told.push(`moved ${peer}`),
  } satisfies ShieldedOptions)
  const heard: Buffer[] = []
  const events: string[] = []
  shielded.on('data', (chunk: Buffer) => heard.push(chunk))
  for (const event of ['drain', 'end', 'close']) shielded.on(event, () => events.push(event))
  shielded.write(hex(options.connect ?? CONNECT4))
  shielded.resume()
  first.say(connack)
  await setImmediate()
  first.written.length = 0
  heard.length = 0
  return {
    first,
    shielded,
    pacer,
    clock,
    outcomes,
    told,
    events,
    write: (...octets: string[]) => octets.map((each) => shielded.write(hex(each))),
    heard: () => Buffer.concat(heard.splice(0)).toString('hex'),
    async lose() {
      first.reset()
      await setImmediate()
    },
    /** The broker's next connection, which answers so; null: it cannot be reached. */
    async comeBack(...answer: string[]) {
      const stream = new FakeStream()
      next.push(stream)
      const attempting = shielded.attempt()
      await setImmediate()
      const asked = stream.heard
      stream.written.length = 0
      stream.say(Buffer.from(plain(...answer), 'hex'))
      const attempted = await attempting
      await setImmediate()
      return { stream, asked, attempted }
    },
    async cannotComeBack(code: 'ERR_BACKEND_REFUSED' | 'ERR_BACKEND_TIMEOUT' | 'ERR_DIAL_EXHAUSTED') {
      next.push(new ProxyError(code, 'away'))
      return shielded.attempt()
    },
  }
}

const notHeld = async (t: ExecutionContext, outcome: ShieldOutcome | null, made: Awaited<ReturnType<typeof rig>>) => {
  await made.lose()
  t.false(made.shielded.isHeld)
  t.deepEqual(made.outcomes, outcome === null ? [] : [outcome])
  t.deepEqual(made.events, ['close'])
  t.true(made.shielded.destroyed)
}

test('while nothing happens it is the stream behind it', async (t) => {
  const { first, write, heard, told, shielded, events } = await rig()
  t.deepEqual(told, ['arrived one:1883'])
  t.deepEqual(write(PUBLISH1), [true])
  t.is(first.heard, plain(PUBLISH1))
  first.say(PUBACK1)
  await setImmediate()
  t.is(heard(), plain(PUBACK1))
  first.roomy = false
  t.deepEqual(write(PUBLISH2), [false])
  first.emit('drain')
  t.deepEqual(events, ['drain'])
  shielded.pause()
  t.false(first.flowing)
  shielded.end()
  t.true(first.finished)
})

test('what was not acknowledged is said again, marked and in order; what was acknowledged is not [MQTT-4.4.0-1]', async (t) => {
  const { first, write, lose, comeBack, shielded, outcomes, told, events } = await rig()
  write(PUBLISH1, SUBSCRIBE, PUBLISH2)
  first.say(PUBACK1)
  await setImmediate()
  await lose()
  t.true(shielded.isHeld)
  t.deepEqual(events, [])
  const { stream, asked, attempted } = await comeBack(CONNACK4_PRESENT)
  t.is(attempted, 'resumed')
  t.is(asked, plain(CONNECT4))
  t.is(stream.heard, plain(SUBSCRIBE, PUBLISH2_DUP))
  t.deepEqual(outcomes, ['resumed'])
  t.deepEqual(told.slice(1), ['lost one:1883', 'held', 'arrived two:1883', 'moved two:1883'])
  t.true(stream.flowing)
})

test('what the device says meanwhile comes after that, unmarked; PINGREQ is answered and goes nowhere', async (t) => {
  const { write, lose, comeBack, heard } = await rig()
  write(PUBLISH1)
  await lose()
  t.deepEqual(write(PUBLISH2, 'c000', SUBSCRIBE), [true, true, true])
  await setImmediate()
  t.is(heard(), 'd000')
  const { stream } = await comeBack(CONNACK4_PRESENT)
  t.is(stream.heard, plain(PUBLISH1_DUP, PUBLISH2, SUBSCRIBE))
  write('c000')
  t.is(stream.heard, plain(PUBLISH1_DUP, PUBLISH2, SUBSCRIBE, 'c000'))
})

test('a connection that is lost again before the acknowledgement: everything is said again, and what came meanwhile is marked by then', async (t) => {
  const { write, lose, comeBack } = await rig()
  write(PUBLISH1)
  await lose()
  write(PUBLISH2)
  const { stream } = await comeBack(CONNACK4_PRESENT)
  stream.reset()
  await setImmediate()
  const again = await comeBack(CONNACK4_PRESENT)
  t.is(again.attempted, 'resumed')
  t.is(again.stream.heard, plain(PUBLISH1_DUP, PUBLISH2_DUP))
})

test('a packet that the loss has cut is sent whole, wherever it was cut', async (t) => {
  const whole = Buffer.from(plain(PUBLISH1), 'hex')
  for (let at = 1; at < whole.length; at++) {
    const { shielded, lose, comeBack } = await rig()
    shielded.write(whole.subarray(0, at))
    await lose()
    // Its rest comes before the broker is back, or after.
    if (at % 2 === 0) shielded.write(whole.subarray(at))
    const { stream } = await comeBack(CONNACK4_PRESENT)
    if (at % 2 === 1) shielded.write(whole.subarray(at))
    t.is(stream.heard, plain(PUBLISH1), `cut at ${at}`)
  }
})

test('what comes with CONNACK is heard, once the device reads', async (t) => {
  const { lose, comeBack, heard } = await rig()
  await lose()
  await comeBack(CONNACK4_PRESENT, '3003 0001 61', '30')
  t.is(heard(), plain('3003 0001 61'))
})

test('half a delivery of the lost connection is not handed on', async (t) => {
  const { first, lose, comeBack, heard } = await rig()
  first.say('3003 0001 61 3206 0001 61')
  await setImmediate()
  t.is(heard(), plain('3003 0001 61'))
  await lose()
  await comeBack(CONNACK4_PRESENT, '3a06 0001 61 0009 78')
  t.is(heard(), plain('3a06 0001 61 0009 78'))
})

test('acknowledgements of what the lost connection delivered go nowhere, and are waited for', async (t) => {
  const { first, write, lose, comeBack, shielded } = await rig()
  first.say('3206 0001 61 0005 78')
  await setImmediate()
  await lose()
  t.false(shielded.isReady)
  write('4002 0005')
  t.true(shielded.isReady)
  const { stream } = await comeBack(CONNACK4_PRESENT, '3a06 0001 61 0005 78')
  t.is(stream.heard, '')
  write('4002 0005')
  t.is(stream.heard, plain('4002 0005'))
})

test('past the buffer the device is not read any more, until the broker is back', async (t) => {
  const { write, lose, comeBack, events } = await rig({ bufferBytes: 20 })
  await lose()
  t.deepEqual(write(PUBLISH1, PUBLISH2, '3003 0001 61'), [true, true, false])
  t.deepEqual(events, [])
  await comeBack(CONNACK4_PRESENT)
  t.deepEqual(events, ['drain'])
})

test('a PINGREQ that the lost broker has not answered is answered, and a writer that waited for it goes on', async (t) => {
  const { first, write, lose, heard, events } = await rig()
  write('c000')
  first.say('d000')
  await setImmediate()
  t.is(heard(), 'd000')
  // The socket is gone already, and has not said so yet.
  first.roomy = false
  t.deepEqual(write('c000', PUBLISH1), [false, false])
  await lose()
  t.is(heard(), 'd000')
  t.deepEqual(events, ['drain'])
})

test('paused before, it is paused after', async (t) => {
  const { shielded, lose, comeBack } = await rig()
  shielded.pause()
  await lose()
  const { stream } = await comeBack(CONNACK4_PRESENT)
  t.false(stream.flowing)
  shielded.resume()
  t.true(stream.flowing)
})

test('without its session at the broker the device is closed, and the broker hears a goodbye, so that there is no will', async (t) => {
  const { write, first, lose, comeBack, shielded } = await rig()
  write(SUBSCRIBE)
  first.say(SUBACK)
  await setImmediate()
  await lose()
  const { attempted, stream } = await comeBack(CONNACK4)
  t.is(attempted, 'session_gone')
  t.is(stream.heard, 'e000')
  t.true(stream.finished)
  t.true(shielded.isHeld, 'it is the pacer that ends it')
})

test('a session that was never anything at the broker goes on with another that is nothing', async (t) => {
  for (const cleanStart of [false, true]) {
    const { write, lose, comeBack } = await rig({ cleanStart })
    write(PUBLISH1)
    await lose()
    const { attempted, stream } = await comeBack(CONNACK4)
    t.is(attempted, 'resumed')
    t.is(stream.heard, plain(PUBLISH1_DUP))
  }
})

test('a session that was there before is not nothing, even if it has not subscribed here', async (t) => {
  const { lose, comeBack } = await rig({ connack: CONNACK4_PRESENT })
  await lose()
  t.is((await comeBack(CONNACK4)).attempted, 'session_gone')
})

test('MQTT 5 asks for the session that is there, whatever the device asked for at first', async (t) => {
  const { lose, comeBack } = await rig({ version: 5, connack: '2003 00 00 00', cleanStart: true })
  await lose()
  const { attempted, asked } = await comeBack('2003 01 00 00')
  t.is(attempted, 'resumed')
  t.is(asked, plain(CONNECT5_ASKING))
})

for (const [what, before, after, expected] of [
  ['Receive Maximum', '21000a', '210009', 'changed'],
  ['Receive Maximum, where there was none', '', '21000a', 'changed'],
  ['a larger Receive Maximum', '21000a', '210014', 'resumed'],
  ['Maximum QoS', '', '2401', 'changed'],
  ['Retain Available', '', '2500', 'changed'],
  ['Maximum Packet Size', '', '2700010000', 'changed'],
  ['wildcards', '', '2800', 'changed'],
  ['subscription identifiers', '', '2900', 'changed'],
  ['shared subscriptions', '', '2a00', 'changed'],
  ['Session Expiry Interval', '', '1100000010', 'changed'],
  ['a shorter keep alive', '', '13001e', 'changed'],
  ['a longer keep alive', '13001e', '', 'resumed'],
  ['Response Information', '1a000161', '1a000162', 'changed'],
  ['nothing', '2401', '2401', 'resumed'],
] as const) {
  test(`a broker that is back and grants other ${what}: ${expected}`, async (t) => {
    const connack = (flags: string, properties: string) => {
      const length = properties.length / 2
      return `20${(3 + length).toString(16).padStart(2, '0')}${flags}00${length.toString(16).padStart(2, '0')}${properties}`
    }
    const { lose, comeBack } = await rig({ version: 5, connack: connack('00', before) })
    await lose()
    t.is((await comeBack(connack('01', after))).attempted, expected)
  })
}

for (const [what, version, answer, expected] of [
  ['3.1.1 server unavailable', 4, '2002 00 03', 'later'],
  ['3.1.1 not authorized', 4, '2002 00 05', 'refused'],
  ['MQTT 5 server unavailable', 5, '2003 00 88 00', 'later'],
  ['MQTT 5 server busy', 5, '2003 00 89 00', 'later'],
  ['MQTT 5 not authorized', 5, '2003 00 87 00', 'refused'],
  ['what is no CONNACK', 4, 'd000', 'later'],
] as const) {
  test(`an answer of ${what} is «${expected}»`, async (t) => {
    const { lose, comeBack } = await rig({ version, connack: version === 4 ? CONNACK4 : '2003 00 00 00' })
    await lose()
    t.is((await comeBack(answer)).attempted, expected)
  })
}

test('a broker that cannot be reached, or that breaks off, is for later', async (t) => {
  const { lose, cannotComeBack, comeBack, write } = await rig()
  write(PUBLISH1)
  await lose()
  for (const code of ['ERR_BACKEND_REFUSED', 'ERR_BACKEND_TIMEOUT', 'ERR_DIAL_EXHAUSTED'] as const) {
    t.is(await cannotComeBack(code), 'later')
  }
  const { stream } = await comeBack(CONNACK4_PRESENT)
  t.is(stream.heard, plain(PUBLISH1_DUP))
})

test('before CONNACK nothing is held', async (t) => {
  const made = await rig({ connack: '30' })
  await notHeld(t, null, made)
  t.deepEqual(made.told, [])
})

test('after a refusal nothing is held', async (t) => {
  await notHeld(t, null, await rig({ connack: '2002 00 05' }))
})

for (const direction of ['device', 'broker'] as const) {
  test(`QoS 2 in flight from the ${direction} is not held; once it is complete, it is`, async (t) => {
    const publish = '3406 0001 61 0003 78'
    const steps = [publish, '5002 0003', '6202 0003', '7002 0003']
    for (let count = 1; count <= steps.length; count++) {
      const made = await rig()
      for (const [index, step] of steps.slice(0, count).entries()) {
        if ((index % 2 === 0) === (direction === 'device')) made.write(step)
        else made.first.say(step)
        await setImmediate()
      }
      if (count < steps.length) await notHeld(t, 'qos2', made)
      else {
        await made.lose()
        t.true(made.shielded.isHeld)
      }
    }
  })
}

test('more in flight than may be kept is not held, until it is acknowledged', async (t) => {
  const made = await rig({ bufferBytes: 10 })
  made.write(PUBLISH1, PUBLISH2)
  made.first.say('4002 0002')
  await setImmediate()
  await made.lose()
  t.true(made.shielded.isHeld)
  const other = await rig({ bufferBytes: 10 })
  other.write(PUBLISH1, PUBLISH2)
  await notHeld(t, 'unkept', other)
})

test('a delivery of which a part was handed on is not held', async (t) => {
  const made = await rig()
  const large = Buffer.concat([hex('30 80 80 20 0001 61'), Buffer.alloc(300_000, 0x78)])
  made.first.say(large)
  await setImmediate()
  t.is(made.heard().length / 2, large.length)
  await notHeld(t, 'mid_packet', made)
})

test('a session that the broker does not keep is not held once it has subscribed', async (t) => {
  const made = await rig({ cleanStart: true })
  made.write(SUBSCRIBE)
  await notHeld(t, 'no_session', made)
  const five = await rig({ version: 5, connack: '2003 00 00 00', sessionExpirySeconds: 0 })
  five.write('8207 0007 00 0001 61 01')
  await notHeld(t, 'no_session', five)
  const lowered = await rig({ version: 5, connack: '2008 00 00 05 1100000000' })
  lowered.write('8207 0007 00 0001 61 01')
  await notHeld(t, 'no_session', lowered)
})

test('enhanced authentication is not held: only the device could repeat it', async (t) => {
  await notHeld(t, 'enhanced_auth', await rig({ version: 5, connack: '2003 00 00 00', enhancedAuth: true }))
})

test('the broker of MQTT 5 that goes itself is a loss; one that sends the device away is not', async (t) => {
  const away = await rig({ version: 5, connack: '2003 00 00 00' })
  away.first.say('e002 8b00')
  await setImmediate()
  t.true(away.shielded.isHeld)
  t.is(away.heard(), '')
  for (const reason of ['00', '8e', '98', '87', '9d']) {
    const meant = await rig({ version: 5, connack: '2003 00 00 00' })
    meant.first.say(`e002 ${reason}00`)
    await setImmediate()
    t.is(meant.heard(), `e002${reason}00`)
    await notHeld(t, null, meant)
  }
})

test('after the goodbye of the device nothing is held', async (t) => {
  const made = await rig()
  made.write('e000')
  await notHeld(t, null, made)
})

test('a goodbye while it is held ends it', async (t) => {
  const { write, lose, outcomes, events } = await rig()
  await lose()
  write('e000')
  await setImmediate()
  t.deepEqual(outcomes, ['ended'])
  t.deepEqual(events, ['end', 'close'])
})

for (const how of ['end', 'destroy'] as const) {
  test(`${how} while it is held ends it at once, and an attempt under way comes to nothing`, async (t) => {
    const { lose, comeBack, shielded, outcomes, events } = await rig()
    await lose()
    const attempt = comeBack('')
    await setImmediate()
    shielded[how]()
    const { attempted, stream } = await attempt
    t.is(attempted, 'ended')
    t.deepEqual(outcomes, ['ended'])
    t.deepEqual(events, ['end', 'close'])
    t.true(stream.destroyed || stream.finished)
    t.false(shielded.write(Buffer.from('c000', 'hex')))
  })
}

test('while the process is closing nothing is held', async (t) => {
  const made = await rig()
  Object.assign(made.pacer, { isClosing: true })
  await notHeld(t, null, made)
})

test('whoever is lost ten times within a minute is not held an eleventh time', async (t) => {
  const made = await rig()
  let stream = made.first
  for (let round = 0; round < 10; round++) {
    stream.reset()
    await setImmediate()
    t.true(made.shielded.isHeld)
    ;({ stream } = await made.comeBack(CONNACK4_PRESENT))
  }
  stream.reset()
  await setImmediate()
  t.false(made.shielded.isHeld)
  t.is(made.outcomes.at(-1), 'flapping')
})

test('an alias without its topic cannot be said again', async (t) => {
  const made = await rig({ version: 5, connack: '2003 00 00 00' })
  made.write('3208 0000 0001 03 230001')
  await notHeld(t, 'unkept', made)
})
