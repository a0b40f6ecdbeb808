import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, type SecureContext, type TLSSocket } from 'node:tls'
import mqttPacket, { type IConnectPacket, type Packet, type Parser } from 'mqtt-packet'
import { webSocketMessage } from '../../bench/load/packets.ts'
import { type Frame, frames } from './frames.ts'

/** How a device of a fleet connects. */
export interface Way {
  readonly host: string
  readonly port: number
  readonly serverName: string
  readonly context: SecureContext
  readonly alpn: string | null
  readonly version: 4 | 5
  readonly clientId: string
  readonly keepAliveSeconds: number
  readonly username: string | null
  readonly password: string | null
  /** False: the broker keeps the session for an hour. */
  readonly clean: boolean
  readonly localAddress: string | null
  /** Path of the upgrade where it comes by WebSocket. */
  readonly webSocket: string | null
  /** From the first SYN to CONNACK, in milliseconds. */
  readonly withinMs: number
}

/**
 * How an attempt ended: `in`, `connack <code>`, `closed` with whatever error came, or `silent` when nothing at all came
 * within its time, which a door must never do.
 */
export type Outcome = string

export interface DeviceEvents {
  packet(packet: Packet): void
  /** Once, after an attempt that came in: how the connection ended. */
  ended(how: string): void
}

/** One connection of one device: TCP, TLS, perhaps a WebSocket, CONNECT. */
export class Link {
  readonly #way: Way
  readonly #events: DeviceEvents
  readonly #raw: Socket
  readonly #tls: TLSSocket
  readonly #parser: Parser
  readonly #unframe: ((chunk: Buffer) => Frame[]) | null
  #upgraded: boolean
  #head: Buffer = Buffer.alloc(0)
  #in = false
  #over = false
  #error: string | null = null
  #farewell: string | null = null
  #settle: (outcome: Outcome) => void = () => {}
  readonly attempt: Promise<Outcome>
  /** From the first SYN to CONNACK. */
  ms = 0
  sessionPresent = false

  constructor(way: Way, events: DeviceEvents) {
    this.#way = way
    this.#events = events
    this.#upgraded = way.webSocket === null
    this.#unframe = way.webSocket === null ? null : frames()
    this.#parser = mqttPacket.parser({ protocolVersion: way.version })
    const began = performance.now()
    this.attempt = new Promise((resolve) => {
      const timer = setTimeout(() => {
        resolve('silent')
        this.destroy()
      }, way.withinMs)
      this.#settle = (outcome) => {
        clearTimeout(timer)
        this.ms = performance.now() - began
        resolve(outcome)
      }
    })
    // The socket below TLS is our own, because only it can be reset: on Bun a TLSSocket of its own ends with FIN.
    this.#raw = connectTcp({
      host: way.host,
      port: way.port,
      noDelay: true,
      ...(way.localAddress !== null && { localAddress: way.localAddress }),
    })
    this.#tls = connectTls({
      socket: this.#raw,
      servername: way.serverName,
      secureContext: way.context,
      ...(way.alpn !== null && { ALPNProtocols: [way.alpn] }),
    })
    this.#parser.on('packet', (packet: Packet) => this.#heard(packet))
    this.#parser.on('error', (error: Error) => {
      this.#error ??= `garbage: ${error.message}`
      this.destroy()
    })
    const failed = (error: NodeJS.ErrnoException) => {
      this.#error ??= error.code ?? error.message
      // A socket that never connected tells TLS above nothing on Bun.
      if (!this.#in) this.#close()
    }
    this.#raw.on('error', failed)
    this.#tls.on('error', failed)
    this.#tls.on('secureConnect', () => this.#secured())
    this.#tls.on('data', (chunk: Buffer) => this.#data(chunk))
    this.#tls.on('close', () => this.#close())
    this.#raw.on('close', () => this.#close())
  }

  say(packet: Packet): void {
    this.#write(mqttPacket.generate(packet, { protocolVersion: this.#way.version }))
  }

  /** On Bun the socket below goes on reading into memory unless it is told, too. */
  pause(): void {
    this.#tls.pause()
    this.#raw.pause()
  }

  resume(): void {
    this.#raw.resume()
    this.#tls.resume()
  }

  /** DISCONNECT and an end. */
  leave(): void {
    if (this.#in) this.say({ cmd: 'disconnect' } as Packet)
    this.#tls.end()
  }

  destroy(): void {
    this.#tls.destroy()
    this.#raw.destroy()
  }

  /** RST, with nothing said. */
  reset(): void {
    this.#raw.resetAndDestroy()
    this.#tls.destroy()
  }

  #secured(): void {
    const { webSocket, serverName } = this.#way
    if (webSocket === null) {
      this.#connect()
      return
    }
    this.#tls.write(
      `GET ${webSocket} HTTP/1.1\r\nHost: ${serverName}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n',
    )
  }

  #connect(): void {
    const { version, clientId, clean, username, password, keepAliveSeconds } = this.#way
    const connect: IConnectPacket = {
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: version,
      clean,
      clientId,
      keepalive: keepAliveSeconds,
      ...(username !== null && { username }),
      ...(password !== null && { password: Buffer.from(password) }),
      ...(version === 5 && !clean && { properties: { sessionExpiryInterval: 3_600 } }),
    }
    this.say(connect)
  }

  #write(bytes: Buffer): void {
    if (!this.#over) this.#tls.write(this.#unframe === null ? bytes : webSocketMessage(bytes))
  }

  #data(chunk: Buffer): void {
    if (!this.#upgraded) this.#upgrade(chunk)
    else if (this.#unframe === null) this.#parser.parse(chunk)
    else {
      for (const frame of this.#unframe(chunk)) {
        if (frame.kind === 'binary') this.#parser.parse(frame.payload)
        else if (frame.kind === 'close') this.#farewell = `${this.#farewell ?? 'closed'}, ws ${frame.code}`
      }
    }
  }

  #upgrade(chunk: Buffer): void {
    this.#head = Buffer.concat([this.#head, chunk])
    const end = this.#head.indexOf('\r\n\r\n')
    if (end < 0) return
    const status = this.#head.toString('latin1', 9, 12)
    if (status !== '101') {
      this.#error ??= `status ${status}`
      this.destroy()
      return
    }
    this.#upgraded = true
    this.#connect()
    if (this.#head.length > end + 4) this.#data(this.#head.subarray(end + 4))
  }

  #heard(packet: Packet): void {
    if (packet.cmd === 'connack') {
      const code = packet.returnCode ?? packet.reasonCode ?? 0
      this.sessionPresent = packet.sessionPresent
      if (code === 0) {
        this.#in = true
        this.#settle('in')
      } else {
        this.#settle(`connack ${code}`)
        this.destroy()
      }
      return
    }
    if (packet.cmd === 'disconnect') this.#farewell = `disconnect ${packet.reasonCode ?? 0}`
    this.#events.packet(packet)
  }

  #close(): void {
    if (this.#over) return
    this.#over = true
    this.#settle(`closed${this.#error === null ? '' : ` ${this.#error}`}`)
    this.destroy()
    if (this.#in) this.#events.ended(this.#farewell ?? (this.#error === null ? 'closed' : `closed ${this.#error}`))
  }
}
