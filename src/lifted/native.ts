import { X509Certificate } from 'node:crypto'
import type { Server, Socket } from 'node:net'

/**
 * What is used of Bun's own sockets. It is what Bun's own `node:net` and `node:tls` use, and is documented nowhere: whatever
 * is not as expected leaves the connection on the portable transport, and Bun is pinned to an exact version.
 */
export interface NativeSocket {
  /** What the handlers find on their socket; without it they do nothing. */
  data: unknown
  readonly authorized: boolean
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string | undefined
  readonly remotePort: number | undefined
  /** Bytes taken, which may be fewer than there are; negative when the socket is gone. */
  write(chunk: Uint8Array): number
  pause(): void
  resume(): void
  /** Ends our side: close_notify and FIN. */
  shutdown(): void
  close(): void
  reload(options: { readonly socket: object }): void
  setNoDelay(on: boolean): void
  setKeepAlive(on: boolean, delayMs: number): void
  upgradeTLS(options: object): readonly [raw: NativeSocket, tls: NativeSocket] | undefined
  getTLSVersion(): string
  isSessionReused(): boolean
  getPeerX509Certificate(): X509Certificate | undefined
  /** `false`: with the issuers, as far as they were presented or are CAs of the context. */
  getPeerCertificate(abbreviated: false): Presented | undefined
}

interface Presented {
  readonly raw?: Uint8Array
  readonly issuerCertificate?: Presented
}

interface NativeListener {
  /** Whose handlers every socket gets that is accepted from now on. */
  reload(options: { readonly socket: object }): void
}

/** What a socket needs to be lifted, and what it needs more once it speaks TLS. */
const CARRIES = [
  'write',
  'pause',
  'resume',
  'shutdown',
  'close',
  'reload',
  'setNoDelay',
  'setKeepAlive',
  'upgradeTLS',
] as const
const PROVES = ['getTLSVersion', 'isSessionReused', 'getPeerX509Certificate', 'getPeerCertificate'] as const

/** True where the runtime has the second transport at all. */
export const CAN_LIFT = process.versions.bun !== undefined

/** Private to the runtime, so no type tells of it. */
export const handleOf = (socket: Socket): NativeSocket | null =>
  (socket as unknown as { readonly _handle: NativeSocket | null })._handle

/** From now on the stream has nothing to do with its socket, which would keep it in memory for as long as it lives. */
export function detach(socket: Socket): void {
  const owner = socket as unknown as { _handle: NativeSocket | null }
  const handle = owner._handle
  owner._handle = null
  if (handle === null) return
  for (const key of Object.getOwnPropertySymbols(handle)) {
    if (Reflect.get(handle, key) === socket) Reflect.set(handle, key, undefined)
  }
}

/** Of a server of `node:net` that listens; null where the runtime has none. */
export function listenerOf(server: Server): NativeListener | null {
  const handle = (server as unknown as { readonly _handle: NativeListener | null | undefined })._handle
  return CAN_LIFT && typeof handle?.reload === 'function' ? handle : null
}

export const carries = (handle: object | null | undefined): boolean => has(handle, CARRIES)
export const proves = (handle: object | null | undefined): boolean => has(handle, PROVES)

function has(handle: object | null | undefined, methods: readonly (keyof NativeSocket)[]): boolean {
  return CAN_LIFT && handle !== null && handle !== undefined && methods.every((name) => methodOf(handle, name))
}

const methodOf = (handle: object, name: keyof NativeSocket) => typeof Reflect.get(handle, name) === 'function'

/** Who can be asked what the client presented. */
export type Presenter = Pick<NativeSocket, 'getPeerX509Certificate' | 'getPeerCertificate'>

/** What the client presented, leaf first, at most `limit` and one more. */
export function presentedBy(native: Presenter, limit: number): X509Certificate[] {
  const chain: X509Certificate[] = []
  let next = native.getPeerCertificate(false)
  while (next?.raw !== undefined && chain.length <= limit) {
    chain.push(new X509Certificate(next.raw))
    next = next.issuerCertificate === next ? undefined : next.issuerCertificate
  }
  return chain
}
