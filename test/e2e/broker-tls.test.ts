// The way to the broker may be hostile too. Were the broker's certificate not verified, anybody on the way could take
// the fleet's messages; were ours not shown, a broker that asks for it would shut all devices out.
import test, { type ExecutionContext } from 'ava'
import { createCa, issueDevice, issueServer } from '../../src/cli/pki.ts'
import { mqttClient, openDoor, startMosquitto } from '../support/e2e.ts'
import { folderFor, freePort, write } from '../support/proxy.ts'

const inner = createCa({ commonName: 'inner' })
const broker = issueServer(inner, { serverNames: ['broker.test'], ips: [] })
const gateway = issueDevice(inner, { commonName: 'gateway' })
const FILES = { 'inner.pem': inner.certPem, 'gateway.pem': gateway.chainPem, 'gateway.key': gateway.keyPem }

/** Mosquitto over TLS only, for clients with a certificate of the inner CA. */
async function tlsMosquitto(t: ExecutionContext): Promise<{ port: number; log(): string }> {
  const dir = folderFor(t)
  const port = await freePort()
  write(dir, 'ca.pem', inner.certPem)
  write(dir, 'broker.pem', broker.chainPem)
  write(dir, 'broker.key', broker.keyPem)
  const { log } = await startMosquitto(
    t,
    dir,
    `listener ${port} 127.0.0.1
cafile ${dir}/ca.pem
certfile ${dir}/broker.pem
keyfile ${dir}/broker.key
require_certificate true
use_identity_as_username true`,
  )
  return { port, log }
}

const backend = (port: number, rest: string): string =>
  `kind: tls, servers: [ { address: "127.0.0.1:${port}" } ], ${rest}`

test.serial('a broker over TLS that wants a certificate gets ours, and messages pass', async (t) => {
  const mosquitto = await tlsMosquitto(t)
  const { port } = await openDoor(t, {
    backend: backend(mosquitto.port, 'ca: [ inner.pem ], serverName: broker.test, cert: gateway.pem, key: gateway.key'),
    files: FILES,
  })
  const client = await mqttClient(t, port)
  const arrived = new Promise<string>((resolve) => {
    client.once('message', (_topic, payload) => resolve(payload.toString()))
  })
  await client.subscribeAsync('tls/#', { qos: 1 })
  await client.publishAsync('tls/x', 'over two TLS hops', { qos: 1 })
  t.is(await arrived, 'over two TLS hops')
  t.regex(mosquitto.log(), /New client connected .*u'gateway'/)
})

// biome-ignore format: a table is read down its columns
for (const [what, rest] of [
  ['whose certificate leads to another CA', 'ca: [ ca.pem ], serverName: broker.test, cert: gateway.pem, key: gateway.key'],
  ['with another name',                     'ca: [ inner.pem ], serverName: other.test, cert: gateway.pem, key: gateway.key'],
  ['that misses our certificate',           'ca: [ inner.pem ], serverName: broker.test'],
] as const) {
  test.serial(`a broker over TLS ${what} gets no session`, async (t) => {
    const mosquitto = await tlsMosquitto(t)
    const { port } = await openDoor(t, { backend: backend(mosquitto.port, rest), files: FILES })
    const refused = await t.throwsAsync(mqttClient(t, port))
    t.is((refused as { code?: number }).code, 3, refused.message)
    t.notRegex(mosquitto.log(), /New client connected/)
  })
}
