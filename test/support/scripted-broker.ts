import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { ExecutionContext } from 'ava'
import {
  generate,
  type IConnackPacket,
  type IConnectPacket,
  type IPublishPacket,
  type Packet,
  parser as parserOf,
} from 'mqtt-packet'

/** One connection, as the broker sees it. */
export interface Session {
  readonly connect: IConnectPacket
  readonly socket: Socket
  say(packet: Packet): void
  ack(publish: IPublishPacket, reasonCode?: number): void
}

export interface Script {
  /** The answer to CONNECT; null says nothing. CONNACK with success unless told. */
  readonly connack?: (connect: IConnectPacket) => Partial<IConnackPacket> | null
  /** PUBACK unless told. */
  readonly publish?: (publish: IPublishPacket, session: Session) => void
}

export interface ScriptedBroker {
  readonly port: number
  /** CONNECTs, PUBLISHes and DISCONNECTs as they came, over all connections. */
  readonly connects: IConnectPacket[]
  readonly publishes: IPublishPacket[]
  readonly farewells: string[]
  readonly sessions: Set<Session>
}

/** A broker that does what the test says, packet by packet; gone after the test. */
export async function scriptedBroker(t: ExecutionContext, script: Script = {}): Promise<ScriptedBroker> {
  const sockets = new Set<Socket>()
  const broker = { connects: [], publishes: [], farewells: [], sessions: new Set() } as Omit<ScriptedBroker, 'port'>
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('end', () => socket.end())
    socket.on('close', () => sockets.delete(socket))
    serve(socket, script, broker)
  })
  server.listen({ port: 0, host: '127.0.0.1' })
  await once(server, 'listening')
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return { ...broker, port: (server.address() as AddressInfo).port }
}

function serve(socket: Socket, script: Script, broker: Omit<ScriptedBroker, 'port'>): void {
  const parser = parserOf()
  let session: Session | null = null
  socket.on('data', (chunk: Buffer) => parser.parse(chunk))
  parser.on('error', () => socket.destroy())
  parser.on('packet', (packet: Packet) => {
    if (packet.cmd === 'connect') {
      const protocolVersion = packet.protocolVersion ?? 4
      const say = (answer: Packet) => socket.write(generate(answer, { protocolVersion }))
      session = {
        connect: packet,
        socket,
        say,
        ack: ({ messageId = 0 }, reasonCode = 0) => say({ cmd: 'puback', messageId, reasonCode }),
      }
      broker.connects.push(packet)
      broker.sessions.add(session)
      socket.on('close', () => broker.sessions.delete(session!))
      const answer = script.connack === undefined ? {} : script.connack(packet)
      if (answer !== null) {
        say({ cmd: 'connack', sessionPresent: false, returnCode: 0, reasonCode: 0, ...answer } as IConnackPacket)
      }
      return
    }
    if (packet.cmd === 'publish') {
      broker.publishes.push(packet)
      if (script.publish !== undefined) script.publish(packet, session!)
      else if (packet.qos > 0) session!.ack(packet)
    }
    if (packet.cmd === 'disconnect') broker.farewells.push(session!.connect.clientId)
  })
}
