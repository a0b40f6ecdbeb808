import type { AuthorizedConnection } from '../connection.ts'
import type { ShieldSettings } from '../mqtt/shield.ts'
import type { ByteStream } from '../relay.ts'

/** What the broker is told instead of the device's own user name, password, client id and keep alive. */
export interface UpstreamIdentity {
  /** Templates over `${clientId}`, `${principal.id}`, `${principal.<attribute>}` and `${domain}`; null sends none. */
  readonly username: string | null
  readonly password: string | null
  readonly clientId: string | null
  /** `device` passes the device's own on; `0` turns the broker's check off, because ours suffices. */
  readonly keepAlive: 'device' | '0'
}

/** Where sessions go. */
export interface Backend {
  /** The name in the configuration and the `backend` metric label. */
  readonly name: string
  readonly identity: UpstreamIdentity
  /** Whether sessions outlive a broker that goes and comes back; absent or null, they end with it. */
  readonly outageShield?: ShieldSettings | null
  /**
   * Opens a way to one server of this backend, connected (and for TLS verified) within its deadline. Null: for
   * brokergate itself (pooled publishes, events), no device behind it.
   * @throws {ProxyError} ERR_BACKEND_REFUSED, ERR_BACKEND_TIMEOUT (both may be retried elsewhere), ERR_BACKEND_UNTRUSTED.
   */
  open(connection: AuthorizedConnection | null, signal: AbortSignal): Promise<Upstream>
  close(): Promise<void>
}

/** An open way to a broker, ready for the CONNECT packet. */
export interface Upstream {
  readonly stream: ByteStream
  /** `host:port` or the socket's path, for logs. */
  readonly peer: string
}
