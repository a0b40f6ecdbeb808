import type { Socket } from 'node:net'
import type { SecureContext } from 'node:tls'
import { detach, handleOf, type Presenter, proves } from './native.ts'
import { HANDLERS, Lifted } from './stream.ts'
import { LiftedTcp } from './tcp.ts'

interface Verdict {
  readonly code?: string
  readonly message?: string
}

/** Nothing known is not a yes. */
const UNJUDGED: Verdict = { code: 'UNKNOWN' }

/** Without the stack, which would stay as long as the session. */
function verdictOf(error: unknown): Verdict | null {
  if (error === undefined || error === null) return null
  const { code, message } = error as Verdict
  return { code: code ?? message ?? 'UNKNOWN' }
}

export interface LiftOptions {
  readonly context: SecureContext
  readonly requestCert: boolean
  readonly alpn: string | null
}

/**
 * TLS over an accepted socket whose first bytes were given back. Emits `secure` or `_tlsError` besides, as a TLSSocket
 * does, so that one handshake serves both.
 */
export class LiftedTls extends Lifted {
  #verdict: Verdict | null = UNJUDGED

  /** To be called once its events are listened to. Whoever waits for the end of the socket now waits for this. */
  begin(socket: Socket | LiftedTcp, { context, requestCert, alpn }: LiftOptions): void {
    const handle = socket instanceof LiftedTcp ? socket.handle : handleOf(socket)
    const waiting = socket.listeners('close') as (() => void)[]
    let initialData: Buffer | undefined
    if (socket instanceof LiftedTcp) {
      // Its end has been told already, and a handshake takes answers.
      if (socket.peerEnded) throw new Error('the client hung up before the handshake')
      socket.tune()
      initialData = socket.release()
      for (const listener of waiting) this.once('close', listener)
    } else initialData = (socket.read(socket.readableLength) as Buffer | null) ?? undefined
    const pair = handle?.upgradeTLS({
      data: this,
      socket: HANDLERS,
      isServer: true,
      initialData,
      tls: {
        // The runtime's own context, inside of Node's.
        secureContext: (context as SecureContext & { readonly context: unknown }).context,
        requestCert,
        rejectUnauthorized: false,
        ...(alpn === null
          ? {}
          : { ALPNProtocols: Buffer.from(`${String.fromCharCode(alpn.length)}${alpn}`, 'latin1') }),
      },
    })
    if (pair === undefined) {
      if (socket instanceof LiftedTcp) handle?.close()
      throw new Error('the socket has gone')
    }
    const [raw, tls] = pair
    // It goes on telling of the encrypted bytes; without `data` its handlers do nothing.
    raw.data = undefined
    if (!(socket instanceof LiftedTcp)) {
      detach(socket)
      for (const listener of waiting) this.once('close', listener)
      socket.removeAllListeners('close')
      // The emptied stream is let go, with the memory it has.
      socket.destroy()
    }
    if (this.destroyed) tls.close()
    else this.handle = tls
    if (!proves(tls)) throw new Error('the TLS of this runtime is not as expected')
  }

  getProtocol(): string | null {
    return this.handle?.getTLSVersion() ?? null
  }

  isSessionReused(): boolean {
    return this.handle?.isSessionReused() ?? false
  }

  get localAddress(): string | undefined {
    return this.handle?.localAddress
  }

  get localPort(): number | undefined {
    return this.handle?.localPort
  }

  /** As the binding of a TLSSocket has it; null: a valid path. */
  verifyError(): Verdict | null {
    return this.#verdict
  }

  override onHandshake(succeeded: boolean, error: unknown): void {
    if (this.destroyed) return
    if (!succeeded) {
      this.onFault(error ?? new Error('the handshake failed'))
      return
    }
    this.#verdict = verdictOf(error) ?? (this.handle?.authorized === true ? null : UNJUDGED)
    this.emit('secure')
  }
}

/** The runtime's socket of a TLS stream of either transport; null on Node. */
export function nativeOf(tls: Socket | LiftedTls): Presenter | null {
  const handle = tls instanceof LiftedTls ? tls.handle : handleOf(tls)
  return proves(handle) ? handle : null
}
