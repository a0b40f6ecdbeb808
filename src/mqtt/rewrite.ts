import { ProxyError } from '../errors.ts'
import type { Connect } from './connect.ts'
import {
  CONNECT_PROPERTIES,
  editProperties,
  lengthPrefixed,
  type PropertyEdits,
  varint,
  WILL_PROPERTIES,
} from './properties.ts'

const PASSWORD = 0x40
const USERNAME = 0x80

/** What is changed on the way to the broker; `undefined` keeps what the device sent. */
export interface ConnectChanges {
  readonly clientId?: string | undefined
  readonly keepAliveSeconds?: number | undefined
  /** Replaces both user name and password; null in a field sends none. */
  readonly credentials?: { readonly username: string | null; readonly password: string | null } | undefined
  /** On 5 only. */
  readonly properties?: PropertyEdits | undefined
  /** On 5 with a will only. */
  readonly willProperties?: PropertyEdits | undefined
}

/**
 * CONNECT with some fields replaced and every other byte as the device sent it: what is not changed is never encoded
 * again.
 */
export function rewriteConnect(connect: Connect, changes: ConnectChanges): Buffer {
  const { bytes, layout } = connect
  const { clientId, keepAliveSeconds, credentials } = changes
  const properties = edits(changes.properties)
  const willProperties = edits(changes.willProperties)
  if (
    clientId === undefined &&
    keepAliveSeconds === undefined &&
    credentials === undefined &&
    properties === null &&
    willProperties === null
  ) {
    return bytes
  }

  const head = Buffer.from(bytes.subarray(layout.flags - 7, layout.keepAlive + 2))
  if (keepAliveSeconds !== undefined) head.writeUInt16BE(keepAliveSeconds, head.length - 2)
  const tail = credentials === undefined ? [bytes.subarray(layout.credentials)] : credentialFields(connect, credentials)
  if (credentials !== undefined) head[7] = flagsWith(bytes[layout.flags]!, connect, credentials)
  const body = Buffer.concat([
    head,
    properties === null || layout.properties === null
      ? bytes.subarray(layout.keepAlive + 2, layout.clientId[0])
      : editProperties(bytes.subarray(...layout.properties), CONNECT_PROPERTIES, properties),
    clientId === undefined ? bytes.subarray(...layout.clientId) : field(clientId),
    ...willFields(connect, willProperties),
    ...tail,
  ])
  return Buffer.concat([Buffer.from([0x10]), varint(body.length), body])
}

const edits = (some: PropertyEdits | undefined): PropertyEdits | null =>
  some === undefined || some.size === 0 ? null : some

function willFields({ bytes, layout }: Connect, changed: PropertyEdits | null): Buffer[] {
  const list = layout.will?.properties ?? null
  if (changed === null || list === null) return [bytes.subarray(layout.clientId[1], layout.credentials)]
  return [
    editProperties(bytes.subarray(...list), WILL_PROPERTIES, changed),
    bytes.subarray(list[1], layout.credentials),
  ]
}

type Credentials = NonNullable<ConnectChanges['credentials']>

/** 3.1.1 knows no password without a user name [MQTT-3.1.2-22], so an empty one goes with it. */
function usernameOf(connect: Connect, { username, password }: Credentials): string | null {
  return username ?? (password !== null && connect.version === 4 ? '' : null)
}

function flagsWith(flags: number, connect: Connect, credentials: Credentials): number {
  return (
    (flags & ~(USERNAME | PASSWORD)) |
    (usernameOf(connect, credentials) === null ? 0 : USERNAME) |
    (credentials.password === null ? 0 : PASSWORD)
  )
}

function credentialFields(connect: Connect, credentials: Credentials): Buffer[] {
  return [usernameOf(connect, credentials), credentials.password].filter((text) => text !== null).map(field)
}

/** What is longer than MQTT can say came from the device through a template. */
function field(text: string): Buffer {
  try {
    return lengthPrefixed(text)
  } catch (error) {
    throw new ProxyError('ERR_CLIENT_ID_INVALID', error instanceof Error ? error.message : String(error))
  }
}
