// Session tickets in the real program with two workers: a session made at one worker goes on at the other where the
// runtime can share keys, and nowhere is a device let in by a session that would not be let in without.
import { createHash } from 'node:crypto'
import test from 'ava'
import { TLS_RUNTIME } from '../../src/tls/policies.ts'
import { TICKET_FACTS } from '../../src/tls/tickets.ts'
import { NO_OPENSSL, OPENSSL, sClient, tempFiles } from '../support/openssl.ts'
import { createCa, issueDevice, issueServer } from '../support/pki.ts'
import { folderFor, freePort, OPEN_POLICIES, startProxy, write } from '../support/proxy.ts'

const { sharesKeys } = TICKET_FACTS[TLS_RUNTIME]
const ca = createCa({ commonName: 'ca' })
const server = issueServer(ca, { serverNames: ['a.test', 'b.test'] })
const device = issueDevice(ca, { commonName: 'device-1' })
const successor = issueDevice(ca, { commonName: 'device-1' })
const fingerprint = (raw: Buffer) => createHash('sha256').update(raw).digest('hex')

/** MQTT 3.1.1 CONNECT, clean session, keep alive 60 s, client id "d". */
const CONNECT = Buffer.from([0x10, 13, 0, 4, ...Buffer.from('MQTT'), 4, 2, 0, 60, 0, 1, 0x64])

const registry = (status: string) => `certificates:
  - { file: device.pem, status: ${status}, policies: [ devices ] }
  - { file: successor.pem, status: ACTIVE, policies: [ devices ] }
`

const real = OPENSSL ? test : test.skip
const reason = OPENSSL ? '' : ` (${NO_OPENSSL})`

for (const version of ['1_2', '1_3']) {
  real(
    `TLS ${version.replace('_', '.')}: sessions go on among workers, never at another domain, and not for the revoked${reason}`,
    async (t) => {
      const dir = folderFor(t)
      const [port, metricsPort] = [await freePort(), await freePort()]
      write(dir, 'server.pem', server.chainPem)
      write(dir, 'server.key', server.keyPem)
      write(dir, 'registry/policies.yaml', OPEN_POLICIES)
      write(dir, 'registry/device.pem', device.certPem)
      write(dir, 'registry/successor.pem', successor.certPem)
      write(dir, 'registry/certificates.yaml', registry('ACTIVE'))
      const domain = (name: string) => `
  - serverNames: [ ${name} ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    sessionTickets: { enabled: true, lifetime: 1h }
    backend: main`
      const config = write(
        dir,
        'brokergate.yaml',
        `listeners: [ { bind: "127.0.0.1:${port}", as: 8883 } ]
domains:${domain('a.test')}${domain('b.test')}
backends: { main: { kind: embedded } }
registries: { main: { path: registry } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: 2
log: { format: json }
`,
      )
      const proxy = await startProxy(t, config, metricsPort)
      const files = tempFiles({
        cert: device.certPem,
        key: device.keyPem,
        newCert: successor.certPem,
        newKey: successor.keyPem,
        session: '',
      })
      t.teardown(() => files.remove())
      const { paths } = files
      const connect = async (name: string, more: readonly string[], [cert, key] = [paths.cert!, paths.key!]) => {
        const { output } = await sClient({
          port,
          args: [`-tls${version}`, '-servername', name, '-cert', cert, '-key', key, '-quiet', '-state', ...more],
          // A Finished of the server is the last of a handshake, resumed or not.
          say: {
            after: /SSLv3\/TLS read server session ticket|SSLv3\/TLS (?:read|write) finished/i,
            text: CONNECT.toString('latin1'),
          },
          until: /\x20\x02\x00\x00/,
          deadlineMs: 15_000,
        })
        return { output, welcome: output.includes('\x20\x02\x00\x00') }
      }
      const resumed = async () =>
        proxy.metric(`brokergate_handshakes_resumed_total{version="TLSv${version.replace('_', '.')}"}`)

      t.true((await connect('a.test', ['-sess_out', paths.session!])).welcome)
      const before = await resumed()
      t.is(before, 0)
      const VISITS = 12
      for (let visit = 0; visit < VISITS; visit++)
        t.true((await connect('a.test', ['-sess_in', paths.session!])).welcome)
      const after = await resumed()
      if (sharesKeys) t.is(after, VISITS)
      else t.true(after > 0, 'the worker that made the session knows it')

      for (let visit = 0; visit < 4; visit++) t.true((await connect('b.test', ['-sess_in', paths.session!])).welcome)
      t.is(await resumed(), after)

      // Revoked: with a session and without, whatever worker it comes to.
      const read = await proxy.metric('brokergate_registry_reloads_total{registry="main",result="ok"}')
      write(dir, 'registry/certificates.yaml', registry('REVOKED'))
      await proxy.until(
        async () => (await proxy.metric('brokergate_registry_reloads_total{registry="main",result="ok"}')) >= read + 2,
        'both workers have read the registry',
      )
      for (let visit = 0; visit < 4; visit++) t.false((await connect('a.test', ['-sess_in', paths.session!])).welcome)
      t.true((await proxy.metric('brokergate_identities_total{method="x509",result="certificate_revoked"}')) >= 4)

      // Its successor comes with the session of the former certificate: refused at most once by each worker, then known.
      const outcomes: boolean[] = []
      for (let visit = 0; visit < 6; visit++) {
        outcomes.push((await connect('a.test', ['-sess_in', paths.session!], [paths.newCert!, paths.newKey!])).welcome)
      }
      t.true(outcomes.filter((welcome) => !welcome).length <= 2, String(outcomes))
      t.true(outcomes.at(-1))
      t.true(proxy.lines().some(({ principal }) => principal === fingerprint(successor.cert.raw)))

      t.true((await proxy.metric('brokergate_ticket_key_rotations_total')) >= 2)
      t.is((await proxy.stop()).code, 0)
      t.is(
        proxy.lines().some((line) => JSON.stringify(line).includes('sessionTickets')),
        !sharesKeys,
      )
    },
  )
}
