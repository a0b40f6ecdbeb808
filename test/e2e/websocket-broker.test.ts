import test, { type ExecutionContext } from 'ava'
import { eventually, mqttClient, openDoor, server, startMosquitto } from '../support/e2e.ts'
import { folderFor, freePort, write } from '../support/proxy.ts'

/**
 * Devices over mutual TLS, and a broker that is reached by WebSocket alone. The frames that Mosquitto makes are its own
 * (libwebsockets): cut as it likes, with pings, and with a Close where a TCP broker sends FIN.
 */

/** With a plain listener beside it, because this Mosquitto takes none but WebSocket listeners for none at all. */
async function overWebSocket(t: ExecutionContext, rest = ''): Promise<{ readonly port: number; log(): string }> {
  const [port, plain] = [await freePort(), await freePort()]
  const dir = folderFor(t)
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  const lines = `listener ${plain} 127.0.0.1\nlistener ${port} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n`
  const { log } = await startMosquitto(t, dir, lines + rest.replaceAll('DIR', dir))
  return { port, log }
}

for (const scheme of ['ws', 'wss'] as const) {
  for (const protocolVersion of [4, 5] as const) {
    test.serial(`MQTT ${protocolVersion} to a Mosquitto behind ${scheme}: small, large and many`, async (t) => {
      const tls = scheme === 'wss' ? 'certfile DIR/server.pem\nkeyfile DIR/server.key\n' : ''
      const { port: broker, log } = await overWebSocket(t, tls)
      const door = await openDoor(t, {
        backend: `kind: ws, servers: [ { url: "${scheme}://127.0.0.1:${broker}/mqtt" } ]${scheme === 'wss' ? ', ca: [ ca.pem ]' : ''}`,
      })
      const client = await mqttClient(t, door.port, { protocolVersion, clientId: 'device-1' })
      const got: Buffer[] = []
      client.on('message', (_topic, payload) => got.push(payload))
      await client.subscribeAsync('a/#', { qos: 1 })
      await client.publishAsync('a/small', 'hello', { qos: 1 })
      // Mosquitto 2.0.11 writes 4 KiB every 100 ms over WebSocket, also without us; the way in has no such trouble.
      const large = Buffer.alloc(40_000, 'large ')
      await client.publishAsync('a/large', large, { qos: 1 })
      await client.publishAsync('b/larger', Buffer.alloc(3_000_000), { qos: 1 })
      await Promise.all(Array.from({ length: 500 }, (_, at) => client.publishAsync('a/many', `${at}`, { qos: 1 })))
      await eventually(() => got.length === 502, `502 messages, ${got.length} so far`)
      t.is(got[0]!.toString(), 'hello')
      t.true(got[1]!.equals(large))
      t.deepEqual(
        got.slice(2).map(String),
        Array.from({ length: 500 }, (_, at) => `${at}`),
      )
      await client.endAsync()
      await eventually(() => /device-1 (?:disconnected|closed its connection)/.test(log()), 'the goodbye at the broker')
      t.regex(log(), /Received DISCONNECT from device-1/)
    })
  }
}

test.serial('a broker behind ws that ends is told to the device as any other', async (t) => {
  const { port: broker } = await overWebSocket(t)
  const door = await openDoor(t, { backend: `kind: ws, servers: [ { url: "ws://127.0.0.1:${broker}/mqtt" } ]` })
  const first = await mqttClient(t, door.port, { protocolVersion: 5, clientId: 'same' })
  const farewell = new Promise<number | undefined>((resolve) => {
    first.once('disconnect', (packet) => resolve(packet.reasonCode))
  })
  // The broker closes the first session of a client id when the second begins [MQTT-3.1.4-3].
  await mqttClient(t, door.port, { protocolVersion: 5, clientId: 'same' })
  // 0x8e where it says so itself; over WebSocket this Mosquitto only closes.
  t.true([0x80, 0x8e].includes((await farewell) ?? 0))
})
