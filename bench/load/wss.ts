import type { Device, Identity } from './device.ts'
import { openHttp, upgradeRequest } from './http.ts'
import { connectPacket, webSocketMessage } from './packets.ts'

// MQTT over WebSocket, from the client's side.

const BINARY = 2

/** Takes frames apart as they come; tells how many bytes of binary messages were in a chunk. RFC 6455 §5.2. */
export function unframer(): (chunk: Buffer) => number {
  let kept: Buffer = Buffer.alloc(0)
  /** Payload of the current frame that is still to come. */
  let left = 0
  return (chunk) => {
    let payload = 0
    let bytes = kept.length === 0 ? chunk : Buffer.concat([kept, chunk])
    kept = Buffer.alloc(0)
    while (bytes.length > 0) {
      if (left > 0) {
        const taken = Math.min(left, bytes.length)
        payload += taken
        left -= taken
        bytes = bytes.subarray(taken)
        continue
      }
      const small = bytes.length < 2 ? 0 : bytes[1]! & 0x7f
      const headBytes = small === 126 ? 4 : small === 127 ? 10 : 2
      if (bytes.length < headBytes) {
        kept = bytes
        break
      }
      if ((bytes[0]! & 0x0f) > BINARY)
        throw new Error(`a frame of kind ${bytes[0]! & 0x0f}: ${bytes.toString('hex', 0, 16)}`)
      left = small === 126 ? bytes.readUInt16BE(2) : small === 127 ? Number(bytes.readBigUInt64BE(2)) : small
      bytes = bytes.subarray(headBytes)
    }
    return payload
  }
}

/** Upgrade, CONNECT, CONNACK; then a device like any other, whose packets travel in messages. */
export async function openWssDevice(
  port: number,
  identity: Identity,
  clientId: string,
  token: string,
): Promise<Device> {
  const from = performance.now()
  const connection = await openHttp(port, identity)
  const { socket } = connection
  const status = await connection.ask(upgradeRequest(identity.serverName, token))
  if (status !== 101) throw new Error(`not upgraded: ${status}`)
  const facts = { protocol: socket.getProtocol() ?? 'none', cipher: socket.getCipher().name, resumed: false }
  socket.removeAllListeners('data')
  const device = {
    clientId,
    socket,
    facts,
    ms: 0,
    onData(_chunk: Buffer) {},
    onClose() {},
    leave: () => connection.close(),
    destroy: () => void socket.destroy(),
  }
  socket.on('close', () => device.onClose())
  await new Promise<void>((resolve, reject) => {
    let seen: Buffer = Buffer.alloc(0)
    device.onData = (chunk) => {
      seen = Buffer.concat([seen, chunk])
      if (seen.length < 6) return
      if (seen[2] === 0x20 && seen[5] === 0) resolve()
      else reject(new Error(`not a CONNACK that says yes: ${seen.toString('hex')}`))
    }
    device.onClose = () => reject(new Error('closed before CONNACK'))
    socket.on('data', (chunk: Buffer) => device.onData(chunk))
    socket.write(webSocketMessage(connectPacket(clientId)))
  })
  device.ms = performance.now() - from
  device.onClose = () => {}
  return device
}
