import type { FailureCode } from '../errors.ts'
import { packetOf } from './bytes.ts'
import type { Shared } from './gate.ts'
import { type Filter, readSubscribe, readSubscribeAnswer, type SubscribeRequest } from './subscribe.ts'
import { filterProblem } from './topic-rules.ts'

/** What becomes of a SUBSCRIBE, an UNSUBSCRIBE or an answer to one. */
export type SubscribeVerdict =
  | { readonly kind: 'pass' }
  | { readonly kind: 'replace'; readonly packet: Buffer }
  /** Nothing is left for the broker; the device has its answer from us. */
  | { readonly kind: 'answered'; readonly answer: Buffer }
  | { readonly kind: 'fault'; readonly code: FailureCode }

/** One that the broker has not answered yet. */
interface Pending {
  readonly kind: 'subscribe' | 'unsubscribe'
  /** As the broker got them, in its order. */
  readonly filters: readonly string[]
  /** Of SUBSCRIBE: the answer per filter of the device, `ASKED` where the broker's goes; null when all of them are. */
  readonly codes: Uint8Array | null
  /** Filters that count as subscriptions from now on, unless the broker refuses them. */
  readonly fresh: ReadonlySet<string>
  readonly bytes: number
}

/** Largest SUBSCRIBE or UNSUBSCRIBE that is held, and largest answer, in bytes after the fixed header. */
export const MAX_SUBSCRIBE = 262_144
/** Filters of unanswered ones together, in bytes. */
const MAX_PENDING = 1_048_576
const ASKED = 0xff

const SUBSCRIBE = 0x82
const SUBACK = 0x90
const MALFORMED = 0x81
const DENIED = 0x87
const FILTER_INVALID = 0x8f
const QUOTA = 0x97
/** 3.1.1 has one word for all of it. */
const FAILURE = 0x80

const PASSED = { kind: 'pass' } as const
const fault = (code: FailureCode): SubscribeVerdict => ({ kind: 'fault', code })

/** The subscriptions of one connection: what it asks for, cut where it must be, and what the broker makes of it. */
export class Subscriptions {
  readonly #shared: Shared
  readonly #pending = new Map<number, Pending>()
  #pendingBytes = 0
  /** Filters in force, while there is a limit to hold them to. A session resumed at the broker starts at 0 here. */
  readonly #active: Set<string> | null

  constructor(shared: Shared) {
    this.#shared = shared
    this.#active = shared.rules.subscriptions === null ? null : new Set()
  }

  get isWaiting(): boolean {
    return this.#pending.size > 0
  }

  /** @param body a whole SUBSCRIBE after its fixed header */
  subscribe(body: Buffer): SubscribeVerdict {
    const { version, rules } = this.#shared
    const request = readSubscribe(body, 'subscribe', version)
    if (request === null) return fault('ERR_PACKET_MALFORMED')
    if (this.#pending.has(request.packetId)) return fault('ERR_PACKET_UNEXPECTED')
    if (request.hasIdentifier && !rules.subscriptionIdentifiers) {
      this.#shared.limited('subscription_identifier')
      return fault('ERR_SUBSCRIPTION_ID_UNSUPPORTED')
    }
    const fresh = new Set<string>()
    const codes = this.#decide(request, fresh)
    if (!(codes instanceof Uint8Array)) return codes
    const asked = request.filters.filter((_, place) => codes[place] === ASKED)
    if (asked.length === 0) {
      return { kind: 'answered', answer: packetOf(SUBACK, [this.#answerHead(request.packetId), codes]) }
    }
    const whole = asked.length === codes.length
    const refusal = this.#await(request.packetId, {
      kind: 'subscribe',
      filters: asked.map(({ text }) => text),
      codes: whole ? null : codes,
      fresh,
      bytes: body.length,
    })
    if (refusal !== null) return refusal
    for (const filter of fresh) this.#active?.add(filter)
    const lowered = asked.some(({ options }) => (options & 0x03) > rules.maxQoS)
    if (whole && !lowered) return PASSED
    return { kind: 'replace', packet: subscribeOf(body, request, asked, rules.maxQoS) }
  }

  /** UNSUBSCRIBE goes on as it is: filters that never went on are unknown to the broker too, and it says so. */
  unsubscribe(body: Buffer): SubscribeVerdict {
    const request = readSubscribe(body, 'unsubscribe', this.#shared.version)
    if (request === null) return fault('ERR_PACKET_MALFORMED')
    const { packetId } = request
    if (this.#pending.has(packetId)) return fault('ERR_PACKET_UNEXPECTED')
    const filters = request.filters.map(({ text }) => text)
    return (
      this.#await(packetId, { kind: 'unsubscribe', filters, codes: null, fresh: new Set(), bytes: body.length }) ??
      PASSED
    )
  }

  /** @param body a whole SUBACK or UNSUBACK of the broker after its fixed header */
  answered(body: Buffer, kind: 'subscribe' | 'unsubscribe'): SubscribeVerdict {
    const { version, observer } = this.#shared
    const answer = readSubscribeAnswer(body, version)
    if (answer === null) return fault('ERR_BACKEND_PROTOCOL')
    const pending = this.#pending.get(answer.packetId)
    // Nobody asked for it here; whether that is an answer is the device's to judge.
    if (pending === undefined || pending.kind !== kind) return PASSED
    this.#pending.delete(answer.packetId)
    this.#pendingBytes -= pending.bytes
    const given = body.subarray(answer.codesAt)
    const expected = kind === 'unsubscribe' && version === 4 ? 0 : pending.filters.length
    if (given.length !== expected) return fault('ERR_BACKEND_PROTOCOL')
    // 3.1.1 UNSUBACK has no codes.
    const codeOf = (place: number) => given[place] ?? 0
    const done = pending.filters.filter((_, place) => codeOf(place) < 0x80)
    if (kind === 'unsubscribe') {
      for (const filter of done) this.#active?.delete(filter)
      // 0x11: there was no such subscription (MQTT 5.0 §3.11.3).
      const gone = pending.filters.filter((_, place) => codeOf(place) < 0x80 && codeOf(place) !== 0x11)
      if (gone.length > 0) observer.unsubscribed(gone)
      return PASSED
    }
    const granted = new Set(done)
    for (const filter of pending.fresh) if (!granted.has(filter)) this.#active?.delete(filter)
    if (done.length > 0) observer.subscribed(done)
    if (pending.codes === null) return PASSED
    const codes = pending.codes
    let next = 0
    for (let place = 0; place < codes.length; place++) if (codes[place] === ASKED) codes[place] = given[next++]!
    return { kind: 'replace', packet: packetOf(SUBACK, [body.subarray(0, answer.codesAt), codes]) }
  }

  /** Per filter: `ASKED`, or why not. */
  #decide(request: SubscribeRequest, fresh: Set<string>): Uint8Array | SubscribeVerdict {
    const { version, rules } = this.#shared
    const codes = new Uint8Array(request.filters.length)
    const word = (code: number) => (version === 4 ? FAILURE : code)
    if (rules.filtersPerSubscribe !== null && codes.length > rules.filtersPerSubscribe) {
      this.#shared.limited('filters')
      return codes.fill(word(QUOTA))
    }
    for (const [place, filter] of request.filters.entries()) {
      // Elsewhere a lower QoS is granted; AWS IoT Core does not answer a SUBSCRIBE of QoS 2 (specification §6.1).
      if (rules.profile === 'aws-iot' && (filter.options & 0x03) > rules.maxQoS) {
        this.#shared.limited('qos')
        return fault('ERR_QOS_UNSUPPORTED')
      }
      const code = this.#refusalOf(filter, fresh)
      if (code === MALFORMED) return fault('ERR_PACKET_MALFORMED')
      const { subscribe3, subscribe5 } = rules.denials
      if (code === DENIED && (version === 4 ? subscribe3 : subscribe5) === 'close') return fault('ERR_ACTION_DENIED')
      codes[place] = code === null ? ASKED : word(code)
    }
    return codes
  }

  #refusalOf(filter: Filter, fresh: Set<string>): number | null {
    const { rules } = this.#shared
    const { permit } = this.#shared
    const problem = filterProblem(filter.text, filter.bytes, rules)
    // [MQTT-4.7.1-1, MQTT-4.7.1-2]: no broker takes any part of such a SUBSCRIBE.
    if (problem === 'form') return MALFORMED
    if (problem === 'limit') this.#shared.limited('topic')
    if (problem !== null) return FILTER_INVALID
    if (!permit.allowsAll('iot:Subscribe')) {
      const resource = `topicfilter/${filter.text}`
      if (!this.#shared.permits(permit.allows('iot:Subscribe', resource), 'iot:Subscribe', resource)) return DENIED
    }
    const active = this.#active
    if (active === null || active.has(filter.text) || fresh.has(filter.text)) return null
    if (active.size + fresh.size >= rules.subscriptions!) {
      this.#shared.limited('subscriptions')
      return QUOTA
    }
    fresh.add(filter.text)
    return null
  }

  #await(packetId: number, pending: Pending): SubscribeVerdict | null {
    if (this.#pendingBytes + pending.bytes > MAX_PENDING) {
      this.#shared.limited('subscribe_size')
      return fault('ERR_QUOTA_EXCEEDED')
    }
    this.#pendingBytes += pending.bytes
    this.#pending.set(packetId, pending)
    return null
  }

  #answerHead(packetId: number): Uint8Array {
    const id = [packetId >> 8, packetId & 0xff]
    return Uint8Array.from(this.#shared.version === 4 ? id : [...id, 0])
  }
}

/** The same SUBSCRIBE for fewer filters, or for a lower QoS: identifier and properties as they were. */
function subscribeOf(body: Buffer, request: SubscribeRequest, asked: readonly Filter[], maxQoS: number): Buffer {
  const entries = asked.map(({ at, end, options }) => {
    const entry = body.subarray(at, end)
    if ((options & 0x03) <= maxQoS) return entry
    const lowered = Buffer.from(entry)
    lowered[lowered.length - 1] = (options & ~0x03) | maxQoS
    return lowered
  })
  return packetOf(SUBSCRIBE, [body.subarray(0, request.filtersAt), ...entries])
}
