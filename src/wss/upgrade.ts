import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { WebSocketServer } from 'websocket'
import type { FailureCode } from '../errors.ts'
import { WebSocketStream } from './stream.ts'
import { LateClosingWebSocket, webSocketOptions } from './web-socket.ts'

/** What MQTT calls itself; both carry every version of it, so neither says which (wire specification §8). */
export const SUBPROTOCOLS: ReadonlySet<string> = new Set(['mqtt', 'mqttv3.1'])

export interface UpgradeOptions {
  /** Largest message, which is held whole until its last byte. */
  readonly maxMessageBytes: number
  /** Until the session has let the device in; see `WebSocketStreamOptions`. */
  readonly firstMessageBytes: number
  /** From our Close to the end of the connection; CLOSE_MS unless told, in milliseconds. */
  readonly closeMs?: number
  /** From the device's Close to our answer, at most; see `WebSocketStreamOptions`. */
  readonly answerMs?: number
}

export type Upgrade =
  | { readonly kind: 'accepted'; readonly stream: WebSocketStream; readonly subprotocol: string }
  | { readonly kind: 'refused'; readonly code: FailureCode; readonly detail: string }

const refused = (code: FailureCode, detail: string): Upgrade => ({ kind: 'refused', code, detail })

/** Sixteen bytes in base64 (RFC 6455 §4.1). */
const KEY = /^[+/0-9A-Za-z]{22}==$/

/**
 * Answers a WebSocket upgrade with 101 and gives the frames as a byte stream that is paused; or says why not, and has
 * written nothing. Path, host and identity are judged by then. What the device sent early waits in the stream.
 */
export function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, options: UpgradeOptions): Upgrade {
  const refusal = check(request)
  if (refusal !== null) return refusal
  const subprotocol = chooseSubprotocol(request.headers['sec-websocket-protocol'])
  if (subprotocol === null) return refused('ERR_SUBPROTOCOL', 'neither mqtt nor mqttv3.1 is offered')
  if (!socket.readable || !socket.writable) return refused('ERR_WEBSOCKET', 'the device left before the answer')

  let result = refused('ERR_WEBSOCKET', 'the upgrade failed')
  const server = new WebSocketServer({
    ...webSocketOptions(options.maxMessageBytes, options.closeMs),
    noServer: true,
    clientTracking: false,
    handleProtocols: () => subprotocol,
    WebSocket: LateClosingWebSocket,
  })
  // The package's own refusals: without a listener it would write them itself.
  server.on('wsClientError', (error) => {
    result = refused('ERR_HTTP_MALFORMED', error.message)
  })
  // Called before `handleUpgrade` returns, because nothing is asked of anybody else.
  server.handleUpgrade(request, socket, head, (webSocket) => {
    const { firstMessageBytes, answerMs } = options
    const role = 'server'
    const stream = new WebSocketStream(webSocket, socket, { role, firstMessageBytes, ...(answerMs && { answerMs }) })
    result = { kind: 'accepted', stream, subprotocol }
  })
  return result
}

/** RFC 6455 §4.2.1, before anything is written. */
function check({ method, httpVersion, headers }: IncomingMessage): Upgrade | null {
  if (method !== 'GET') return refused('ERR_HTTP_METHOD', 'a WebSocket upgrade is a GET')
  if (httpVersion !== '1.1') return refused('ERR_UPGRADE_REQUIRED', `HTTP/${httpVersion} has no upgrade`)
  if (headers.upgrade?.toLowerCase() !== 'websocket') return refused('ERR_UPGRADE_REQUIRED', 'not to a WebSocket')
  if (!tokens(headers.connection).includes('upgrade')) {
    return refused('ERR_UPGRADE_REQUIRED', 'Connection does not name the upgrade')
  }
  if (headers['sec-websocket-version'] !== '13') return refused('ERR_UPGRADE_REQUIRED', 'WebSocket version is not 13')
  // A key that comes twice is joined with a comma, and is no key.
  if (!KEY.test(headers['sec-websocket-key'] ?? '')) return refused('ERR_HTTP_MALFORMED', 'Sec-WebSocket-Key')
  const { 'content-length': length } = headers
  if ((length !== undefined && length !== '0') || headers['transfer-encoding'] !== undefined) {
    return refused('ERR_HTTP_MALFORMED', 'an upgrade with a body')
  }
  return null
}

/** The first of the device's list, which is in its order of preference, that is ours. */
function chooseSubprotocol(header: string | undefined): string | null {
  const offered = header?.split(',').map((name) => name.trim()) ?? []
  return offered.find((name) => SUBPROTOCOLS.has(name)) ?? null
}

function tokens(header: string | undefined): readonly string[] {
  return header?.split(',').map((token) => token.trim().toLowerCase()) ?? []
}
