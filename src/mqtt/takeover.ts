import type { Principal } from '../auth/authenticator.ts'
import { Table } from '../collections/table.ts'
import { type FailureCode, ProxyError } from '../errors.ts'
import type { Claim, ClaimAnswer, Store } from '../store/store.ts'
import type { Seat } from './seats.ts'

const REFUSED: Readonly<Record<Exclude<ClaimAnswer['kind'], 'granted'>, readonly [FailureCode, string]>> = {
  taken: ['ERR_CLIENT_ID_TAKEN', 'another principal is connected under this client id'],
  rate: ['ERR_CONNECT_RATE', 'too soon after the last connect under this client id'],
}

export interface ClaimRequest {
  /** Unique within the fleet of processes. */
  readonly session: string
  readonly backend: string
  /** As the broker sees it. */
  readonly clientId: string
  readonly principal: Principal
  readonly domain: string
  readonly perSecond: number | null
}

/** One client id has one connection, whatever worker it came to: the store decides, and its losers are told here. */
export class Takeover {
  readonly #store: Store
  readonly #holds = new Table<Hold>()

  constructor(store: Store) {
    this.#store = store
    store.onLost((session) => this.#holds.get(session)?.lose())
  }

  hold(request: ClaimRequest): Hold {
    const hold = new Hold(this.#store, request, this.#holds)
    // Known before it asks: whoever comes next may already take it away while the answer is on its way.
    this.#holds.set(request.session, hold)
    return hold
  }

  get size(): number {
    return this.#holds.size
  }
}

export interface Holder {
  lost(): void
}

/** One session's grip on its client id. */
export class Hold {
  /** Told once when somebody else has it. */
  holder: Holder | null = null
  /** Which connection of its client id this is, in the words of lifecycle events; as of the last answer. */
  version = 0
  /** Given back as soon as somebody else has the client id: whoever takes over must not find it taken. */
  seat: Seat | null = null
  readonly #store: Store
  readonly #claim: Omit<Claim, 'tentative'>
  /** Devices that only the broker knows have no principal of their own yet. */
  readonly #judgedByBroker: boolean
  /** Where it is known for as long as it is held. */
  readonly #among: Table<Hold>
  #released = false
  #asked = false

  constructor(store: Store, request: ClaimRequest, among: Table<Hold>) {
    const { session, backend, clientId, principal, domain, perSecond } = request
    this.#store = store
    this.#judgedByBroker = principal.method === 'backend'
    this.#claim = {
      // A backend's name has no line feed in it, so that no two pairs are one key.
      key: `${backend}\n${clientId}`,
      owner: ownerOf(principal, domain),
      session,
      // A stranger could use up the rate of a device that only the broker can tell from it.
      perSecond: this.#judgedByBroker ? null : perSecond,
    }
    this.#among = among
  }

  /**
   * Before the broker is dialled: the newcomer of the same principal has the id from now on. A device that only the
   * broker can judge just asks, or a stranger could throw out whomever it likes.
   * @throws {ProxyError} ERR_CLIENT_ID_TAKEN, ERR_CONNECT_RATE; ERR_IDENTITY_FAULT when there was no answer
   */
  async take(): Promise<void> {
    await this.#ask(this.#judgedByBroker)
  }

  /** The broker has accepted the device. @throws {ProxyError} as `take` */
  async confirm(): Promise<void> {
    if (this.#judgedByBroker) await this.#ask(false)
  }

  release(): void {
    if (this.#released) return
    this.#released = true
    this.seat?.leave()
    this.holder = null
    this.#among.delete(this.#claim.session)
    if (this.#asked) this.#store.release(this.#claim.key, this.#claim.session)
  }

  lose(): void {
    this.seat?.leave()
    const told = this.holder
    this.holder = null
    told?.lost()
  }

  async #ask(tentative: boolean): Promise<void> {
    if (this.#released) return
    if (!tentative) this.#asked = true
    let answer: ClaimAnswer
    try {
      answer = await this.#store.claim({ ...this.#claim, tentative })
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      throw new ProxyError('ERR_IDENTITY_FAULT', `who has this client id could not be decided: ${why}`, {
        cause: error,
      })
    }
    if (answer.kind !== 'granted') throw new ProxyError(...REFUSED[answer.kind])
    this.version = answer.version
  }
}

/**
 * A certificate is the same one everywhere. What a broker calls somebody is known in its domain only, and what an
 * authorizer does is its own: another one's principal of that name is somebody else. None of the names before the id has
 * a space in it.
 */
function ownerOf({ id, method, attributes }: Principal, domain: string): string {
  if (method === 'x509') return `x509 ${id}`
  return `${method} ${domain} ${attributes.authorizer ?? ''} ${id}`
}
