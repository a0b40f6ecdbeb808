// A broker that is lost at any moment, between any two bytes, as often as you like: what it has acknowledged it has got, in the
// order of the device, and never twice without a mark; what the device has acknowledged it has got, too, and nothing else.
import { setImmediate } from 'node:timers/promises'
import test from 'ava'
import type { AuthorizedConnection } from '../../src/connection.ts'
import { ProxyError } from '../../src/errors.ts'
import { type Pacer, ShieldedUpstream } from '../../src/mqtt/shielded-upstream.ts'
import { WholePackets } from '../../src/mqtt/whole-packets.ts'
import { FakeStream, hex, seeded } from './fakes.ts'

const RUNS = Number(process.env.SHIELD_RUNS ?? 500)
const STEPS = 120
const CONNECT = hex('100d 0004 4d515454 04 00 003c 0001 64')
/** Few, so that ids come again soon. */
const IDS = 3

const publish = (id: number, number: number, dup = false): Buffer => {
  const packet = Buffer.from([dup ? 0x3a : 0x32, 9, 0, 1, 0x61, id >> 8, id & 0xff, 0, 0, 0, 0])
  packet.writeUInt32BE(number, 7)
  return packet
}
const puback = (id: number): Buffer => Buffer.from([0x40, 2, id >> 8, id & 0xff])
const idOf = (packet: Buffer): number => packet.readUInt16BE(packet[0]! >> 4 === 3 ? 5 : 2)

/** A socket that is gone, and has not said so yet, takes nothing. */
class Line extends FakeStream {
  override write(chunk: Uint8Array): boolean {
    return this.destroyed ? false : super.write(chunk)
  }
}

/** Splits what is written into packets, as far as they are whole. */
function reader(see: (packet: Buffer) => void): (chunk: Buffer) => void {
  const packets = new WholePackets(
    65_536,
    (packet) => {
      see(Buffer.from(packet))
      return true
    },
    () => {},
  )
  return (chunk) => void packets.push(chunk)
}

/** A broker with one session that outlives its connections; it reads what was written to it when it likes, or never. */
class Broker {
  readonly got: { readonly number: number; readonly dup: boolean }[] = []
  readonly acknowledged = new Set<number>()
  /** Deliveries that wait for their acknowledgement, by id. */
  readonly inFlight = new Map<number, number>()
  readonly delivered = new Set<number>()
  stream: FakeStream | null = null
  /** Said, and not on the wire yet: lost with the connection. */
  #unsent = Buffer.alloc(0)
  #read: (chunk: Buffer) => void = () => {}
  #at = 0
  #next = 0

  connect(stream: FakeStream, again: boolean): void {
    this.stream = stream
    this.#at = 0
    this.#read = reader((packet) => this.#hear(packet))
    this.#unsent = Buffer.alloc(0)
    stream.say(again ? '20020100' : '20020000')
    if (again) for (const [id, number] of this.inFlight) this.#say(publish(id, number, true))
  }

  /** Reads some of what is there. */
  work(share: number): void {
    const all = Buffer.concat(this.stream?.written ?? [])
    const to = this.#at + Math.ceil((all.length - this.#at) * share)
    const chunk = all.subarray(this.#at, to)
    this.#at = to
    this.#read(chunk)
  }

  /** Puts some of what it has said on the wire. */
  send(share: number): void {
    const length = Math.ceil(this.#unsent.length * share)
    if (length > 0) this.stream?.say(Buffer.from(this.#unsent.subarray(0, length)))
    this.#unsent = this.#unsent.subarray(length)
  }

  deliver(id: number): void {
    if (this.inFlight.has(id) || this.stream === null) return
    const number = this.#next++
    this.inFlight.set(id, number)
    this.#say(publish(id, number))
  }

  lose(): void {
    this.stream?.reset()
    this.stream = null
  }

  #hear(packet: Buffer): void {
    const type = packet[0]! >> 4
    if (type === 3) {
      this.got.push({ number: packet.readUInt32BE(7), dup: (packet[0]! & 8) !== 0 })
      this.#say(puback(idOf(packet)))
    } else if (type === 4) {
      const number = this.inFlight.get(idOf(packet))
      // An acknowledgement of nothing is passed over, as brokers do.
      if (number === undefined) return
      this.inFlight.delete(idOf(packet))
      this.delivered.add(number)
    } else if (type === 12) this.#say(hex('d000'))
  }

  #say(packet: Buffer): void {
    this.#unsent = Buffer.concat([this.#unsent, packet])
  }
}

async function run(seed: number): Promise<string[]> {
  const random = seeded(seed)
  const problems: string[] = []
  const broker = new Broker()
  const first = new Line()
  const pacer: Pacer = {
    isClosing: false,
    // Losses are far enough apart.
    now: (() => {
      let now = 0
      return () => (now += 60_000)
    })(),
    arrived: () => {},
    departed: () => {},
    lost: () => {},
    held: () => {},
    over: () => {},
    notHeld: (outcome) => problems.push(`not held: ${outcome}`),
  }
  let reachable = true
  const shielded = new ShieldedUpstream(
    { stream: first, peer: 'broker' },
    {
      backend: {
        async open() {
          if (!reachable) throw new ProxyError('ERR_BACKEND_REFUSED', 'away')
          const stream = new Line()
          broker.connect(stream, true)
          return { stream, peer: 'broker' }
        },
      },
      pacer,
      connection: {} as AuthorizedConnection,
      version: 4,
      packet: CONNECT,
      cleanStart: false,
      enhancedAuth: false,
      asked: { keepAliveSeconds: 60, sessionExpirySeconds: 0 },
      bufferBytes: 65_536,
      answerTimeoutMs: 10_000,
      moved() {},
    },
  )

  // The device: at most one publish under an id at a time; it acknowledges what it gets, sometimes late.
  const underWay = new Map<number, number>()
  const acknowledged: number[] = []
  const received = new Set<number>()
  const toAcknowledge: number[] = []
  let [sent, pings, pongs] = [0, 0, 0]
  const hear = reader((packet) => {
    const type = packet[0]! >> 4
    if (type === 4) {
      const number = underWay.get(idOf(packet))
      if (number === undefined) problems.push(`acknowledged what is not under way: ${idOf(packet)}`)
      else acknowledged.push(number)
      underWay.delete(idOf(packet))
    } else if (type === 3) {
      received.add(packet.readUInt32BE(7))
      toAcknowledge.push(idOf(packet))
    } else if (type === 13) pongs++
  })
  shielded.on('data', hear)
  shielded.on('end', () => problems.push('ended'))
  /** Bytes of the device that the gateway has not been given yet. */
  let unsaid = Buffer.alloc(0)
  const say = (packet: Buffer): void => {
    unsaid = Buffer.concat([unsaid, packet])
  }
  const flush = (share: number): void => {
    const length = Math.ceil(unsaid.length * share)
    if (length > 0) shielded.write(Buffer.from(unsaid.subarray(0, length)))
    unsaid = unsaid.subarray(length)
  }

  shielded.write(CONNECT)
  shielded.resume()
  broker.connect(first, false)
  await setImmediate()
  for (let step = 0; step < STEPS; step++) {
    const what = random()
    if (what < 0.3) {
      const id = 1 + Math.floor(random() * IDS)
      if (!underWay.has(id)) {
        underWay.set(id, sent)
        say(publish(id, sent++))
      }
    } else if (what < 0.4) {
      say(hex('c000'))
      pings++
    } else if (what < 0.5) broker.deliver(1 + Math.floor(random() * IDS))
    else if (what < 0.6) {
      for (const id of toAcknowledge.splice(0, Math.ceil(random() * 2))) say(puback(id))
    } else if (what < 0.7) broker.work(random())
    else if (what < 0.8) broker.send(random())
    else if (what < 0.88) {
      broker.lose()
      reachable = random() < 0.5
    } else reachable = true
    flush(random())
    if (random() < 0.5) await setImmediate()
    if (shielded.isReady && random() < 0.5) {
      const attempted = await shielded.attempt()
      if (attempted !== 'resumed' && attempted !== 'later') problems.push(`came to ${attempted}`)
    }
  }
  // In the end everything settles.
  reachable = true
  for (let round = 0; round < 20; round++) {
    for (const id of toAcknowledge.splice(0)) say(puback(id))
    flush(1)
    await setImmediate()
    if (shielded.isReady) await shielded.attempt()
    broker.work(1)
    broker.send(1)
    await setImmediate()
  }

  const got = broker.got.map(({ number }) => number)
  for (const number of acknowledged) if (!got.includes(number)) problems.push(`${number} acknowledged and never got`)
  if (acknowledged.length !== sent) problems.push(`${sent - acknowledged.length} of ${sent} never acknowledged`)
  const unmarked = broker.got.filter(({ dup }) => !dup).map(({ number }) => number)
  if (new Set(unmarked).size !== unmarked.length) problems.push(`twice without a mark: ${unmarked}`)
  const firsts = [...new Set(got)]
  if (firsts.some((number, index) => index > 0 && number < firsts[index - 1]!)) problems.push(`out of order: ${firsts}`)
  for (const number of broker.delivered) if (!received.has(number)) problems.push(`delivery ${number} lost`)
  if (broker.inFlight.size > 0) problems.push(`${broker.inFlight.size} deliveries never acknowledged`)
  if (pongs !== pings) problems.push(`${pings} PINGREQ, ${pongs} PINGRESP`)
  return problems
}

test(`${RUNS} sessions whose broker is lost at random: nothing is lost, doubled, or answered in the wrong place`, async (t) => {
  t.timeout(120_000)
  for (let seed = 1; seed <= RUNS; seed++) t.deepEqual(await run(seed), [], `seed ${seed}`)
})
