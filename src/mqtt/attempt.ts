import type { Authenticated, HttpProof } from '../auth/authenticator.ts'
import type { Identify } from '../auth/identify.ts'
import type { SecuredConnection, Trace } from '../connection.ts'
import { ProxyError } from '../errors.ts'
import type { ByteStream } from '../relay.ts'
import type { Connect } from './connect.ts'
import type { Holder } from './takeover.ts'

/** The time before the relay listens: a device that is gone need not be given a broker. */
export class Attempt implements Holder {
  deviceLeft = false
  readonly #device: ByteStream
  readonly #outer: AbortSignal
  readonly #controller = new AbortController()
  readonly #onClose = () => {
    this.deviceLeft = true
    this.#controller.abort(new ProxyError('ERR_BACKEND_REFUSED', 'the device left'))
  }
  readonly #onAbort = () => this.#controller.abort(this.#outer.reason)

  constructor(device: ByteStream, outer: AbortSignal) {
    this.#device = device
    this.#outer = outer
    device.on('close', this.#onClose)
    outer.addEventListener('abort', this.#onAbort)
    if (outer.aborted) this.#onAbort()
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Its client id. */
  lost(): void {
    this.#controller.abort(new ProxyError('ERR_SESSION_TAKEN_OVER', 'taken over before it was connected'))
  }

  /** Whoever was found for a device that is gone, or may no longer be, is not needed. */
  throwIfEnded(): void {
    if (this.deviceLeft) throw new ProxyError('ERR_BACKEND_REFUSED', 'the device left')
    const { reason } = this.#controller.signal
    if (reason instanceof ProxyError && reason.code === 'ERR_SESSION_TAKEN_OVER') throw reason
  }

  over(): void {
    this.#device.off('close', this.#onClose)
    this.#outer.removeEventListener('abort', this.#onAbort)
  }
}

/** How an identity comes to be decided, for both of the places where it may be. */
export interface Identification {
  readonly identify: Identify
  readonly connection: SecuredConnection
  /** The request that upgraded; an authorizer sees it beside CONNECT. */
  readonly http: HttpProof | null
  /** Who was proved by the upgrade; null: CONNECT has to. */
  readonly who: Authenticated | null
  readonly trace: Trace
}

/** Who is it? Judged before a byte of MQTT is read, wherever the proof is there already; null where CONNECT has to prove it. */
export async function identifyEarly(by: Identification, signal: AbortSignal): Promise<Authenticated | null> {
  if (by.who !== null) return by.who
  const { connection, trace } = by
  const { auth } = connection.admissions[0]!
  if (auth !== 'x509' && auth !== 'backend') return null
  trace.stage = 'authenticate'
  const { peer } = connection
  return by.identify(connection, auth === 'x509' ? { kind: auth, peer } : { kind: auth }, trace, signal)
}

export async function identifyByConnect(
  { identify, connection, http, trace }: Identification,
  connect: Connect,
  signal: AbortSignal,
): Promise<Authenticated> {
  const { auth } = connection.admissions[0]!
  trace.stage = 'authenticate'
  const { username, password } = connect.packet
  const mqtt = { clientId: connect.clientId, username: username ?? null, password: bytesOf(password) }
  if (auth === 'custom') return identify(connection, { kind: auth, http, mqtt }, trace, signal)
  if (auth === 'custom-x509') {
    return identify(connection, { kind: auth, peer: connection.peer, http, mqtt }, trace, signal)
  }
  throw new ProxyError('ERR_INTERNAL', `${auth} is not proved by CONNECT`)
}

function bytesOf(password: Buffer | string | null | undefined): Uint8Array | null {
  return password === undefined || password === null ? null : Buffer.from(password)
}
