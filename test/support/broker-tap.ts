import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import mqttPacket from 'mqtt-packet'
import type { Teardowns } from './proxy.ts'

/**
 * Stands between the door and the broker, and notes which payloads of QoS 1 the broker has acknowledged. What a broker
 * keeps when it is killed is its own affair, so its acknowledgements are read on the wire. Answers with its port.
 */
export async function brokerTap(t: Teardowns, brokerPort: number, acknowledged: Set<string>): Promise<number> {
  const sockets = new Set<Socket>()
  const server = createServer((door) => {
    const broker = connect({ host: '127.0.0.1', port: brokerPort })
    const underWay = new Map<number, string>()
    // Until CONNECT has told which version it is.
    let protocolVersion: 4 | 5 = 5
    const listen = (from: Socket, to: Socket, told: (packet: mqttPacket.Packet) => void) => {
      let parser: mqttPacket.Parser | null = null
      sockets.add(from)
      from.on('data', (chunk: Buffer) => {
        // Looked at before it goes on: who has the acknowledgement finds it noted.
        parser ??= mqttPacket.parser({ protocolVersion }).on('packet', told)
        parser.parse(chunk)
        to.write(chunk)
      })
      from.on('error', () => {})
      from.on('close', () => {
        sockets.delete(from)
        to.destroy()
      })
    }
    listen(door, broker, (packet) => {
      if (packet.cmd === 'connect') protocolVersion = packet.protocolVersion === 5 ? 5 : 4
      if (packet.cmd === 'publish' && packet.qos > 0) underWay.set(packet.messageId!, packet.payload.toString())
    })
    listen(broker, door, (packet) => {
      if (packet.cmd !== 'puback') return
      const { reasonCode = 0 } = packet
      if (reasonCode < 0x80) acknowledged.add(underWay.get(packet.messageId!)!)
    })
  })
  server.listen({ host: '127.0.0.1', port: 0, backlog: 1_024 })
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}
