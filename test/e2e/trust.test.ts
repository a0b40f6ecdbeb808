// Trust by CA on real handshakes: what the TLS library says of a chain, joined with revocation lists that we read
// ourselves. If either were taken alone, a revoked device or its malleated twin would walk in.
import test from 'ava'
import mqtt, { type IClientOptions } from 'mqtt'
import { createCa, createCrl, type Issued, issueDevice, issueServer, malleate } from '../support/pki.ts'
import { folderFor, freePort, OPEN_POLICIES, startProxy, write } from '../support/proxy.ts'

const HOUR = 3_600_000
const root = createCa({ commonName: 'fleet root' })
const intermediate = createCa({ commonName: 'fleet line 1', issuer: root })
const unlisted = createCa({ commonName: 'fleet line 2', issuer: root })
const other = createCa({ commonName: 'somebody else' })
const server = issueServer(root, { serverNames: ['localhost', 'lax.test'] })

const good = issueDevice(intermediate, { commonName: 'good' })
const revoked = issueDevice(intermediate, { commonName: 'revoked' })
const twin: Issued = { ...revoked, chainPem: `${malleate(revoked.certPem).pem}${intermediate.certPem}` }
const wrongUse = issueDevice(intermediate, { commonName: 'wrong use', extendedKeyUsage: ['serverAuth'] })
const withoutList = issueDevice(unlisted, { commonName: 'no list for its issuer' })
const stranger = issueDevice(other, { commonName: 'stranger' })

test('devices trusted by CA pass, and each that must not is refused with its reason before the broker is dialled', async (t) => {
  const dir = folderFor(t)
  const [port, metricsPort] = [await freePort(), await freePort()]
  write(dir, 'root.pem', root.certPem)
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  write(dir, 'root.crl', createCrl(root, { revoked: [] }).pem)
  write(dir, 'line1.crl', createCrl(intermediate, { revoked: [revoked.cert.serialNumber] }).pem)
  write(
    dir,
    'line1-expired.crl',
    createCrl(intermediate, {
      revoked: [revoked.cert.serialNumber],
      thisUpdate: new Date(Date.now() - 48 * HOUR),
      nextUpdate: new Date(Date.now() - 24 * HOUR),
    }).pem,
  )
  write(dir, 'registry/policies.yaml', OPEN_POLICIES)
  const domain = (name: string, crl: string): string => `
  - serverNames: [ ${name} ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    clientTrust: { mode: ca, ca: [ root.pem ], crl: ${crl}, policies: [ devices ] }
    backend: main`
  const config = write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:${port}", as: 8883 } ]
domains:${domain('localhost', '{ files: [ root.crl, line1.crl ] }')}${domain('lax.test', '{ files: [ root.crl, line1-expired.crl ], onExpired: keep, onMissing: allow }')}
backends: { main: { kind: embedded } }
registries: { main: { path: registry } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: 1
log: { format: json }
`,
  )
  const proxy = await startProxy(t, config, metricsPort)
  const connect = (device: Issued, servername: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const client = mqtt.connect({
        protocol: 'mqtts',
        host: '127.0.0.1',
        port,
        ca: root.certPem,
        cert: device.chainPem,
        key: device.keyPem,
        servername,
        reconnectPeriod: 0,
      } as IClientOptions)
      let connected = false
      client.once('connect', () => {
        connected = true
        client.end()
      })
      client.on('error', reject)
      // A refused device sees its socket close and no CONNACK.
      client.once('close', () => (connected ? resolve() : reject(new Error('closed'))))
    })
  const refused = async (device: Issued, servername: string, reason: string): Promise<void> => {
    const series = `brokergate_identities_total{method="x509",result="${reason}"}`
    const before = await proxy.metric(series)
    await t.throwsAsync(connect(device, servername), undefined, `${reason} at ${servername}`)
    await proxy.until(() => proxy.metric(series).then((n) => n === before + 1), series)
  }

  await connect(good, 'localhost')
  await refused(revoked, 'localhost', 'certificate_revoked')
  await refused(twin, 'localhost', 'certificate_revoked')
  await refused(wrongUse, 'localhost', 'certificate_untrusted_ca')
  await refused(stranger, 'localhost', 'certificate_untrusted_ca')
  await refused(withoutList, 'localhost', 'crl_missing')
  // An expired list that is kept still names whom it names; a missing one that is allowed lets the rest in.
  await connect(good, 'lax.test')
  await refused(revoked, 'lax.test', 'certificate_revoked')
  await connect(withoutList, 'lax.test')

  t.is(await proxy.metric('brokergate_backend_dials_total{backend="main",result="ok"}'), 3)
})
