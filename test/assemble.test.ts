import { chmodSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { assemble } from '../src/assemble.ts'
import { init } from '../src/cli/init.ts'
import { loadSettings } from '../src/config/load.ts'
import { NO_METRICS } from '../src/control/metrics.ts'
import { TLS_RUNTIME } from '../src/tls/policies.ts'
import { TICKET_FACTS } from '../src/tls/tickets.ts'
import { folderFor, write } from './support/proxy.ts'

async function warningsOf(dir: string): Promise<readonly string[]> {
  const loaded = loadSettings(join(dir, 'brokergate.yaml'), {})
  if (loaded.kind === 'invalid') throw new Error(JSON.stringify(loaded.issues))
  const assembled = await assemble(loaded.settings, { number: 0, metrics: NO_METRICS, embeddedPath: '' })
  if (assembled.kind === 'refused') return assembled.issues
  await assembled.generation.close()
  // What the runtime lacks of a TLS policy differs between runtimes.
  const lines = assembled.generation.warnings.filter((line) => !line.includes('is served without'))
  return lines.map((line) => line.replaceAll(dir, ''))
}

test('what is made to start from has nothing to be warned of', async (t) => {
  const dir = join(folderFor(t), 'gate')
  init(dir, () => {})
  t.deepEqual(await warningsOf(dir), [])
})

test('a private key that everybody may read is warned of', async (t) => {
  const dir = join(folderFor(t), 'gate')
  init(dir, () => {})
  chmodSync(join(dir, 'pki/server.key'), 0o644)
  t.deepEqual(await warningsOf(dir), [
    'domains[0].certificates[0].key: /pki/server.key is a private key and may be read by everybody on this machine',
  ])
})

test('a key toward a broker, the state of a registry and the folder of the admin socket are looked at, too', async (t) => {
  const dir = join(folderFor(t), 'gate')
  init(dir, () => {})
  write(dir, 'client.pem', readFileSync(join(dir, 'pki/device.pem'), 'utf8'))
  write(dir, 'client.key', readFileSync(join(dir, 'pki/device.key'), 'utf8'))
  write(dir, 'state/overlay.jsonl', '')
  write(dir, 'run/nothing', '')
  write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:8883" } ]
domains: [ { serverNames: [ localhost ], certificates: [ { cert: pki/server.pem, key: pki/server.key } ], registry: main, backend: main } ]
backends:
  main: { kind: tls, servers: [ { address: "127.0.0.1:8883" } ], cert: client.pem, key: client.key }
  forwarded: { kind: http, url: "https://localhost", cert: client.pem, key: client.key }
registries: { main: { path: registry, state: state } }
admin: { socket: run/admin.sock }
`,
  )
  t.deepEqual(await warningsOf(dir), [])
  chmodSync(join(dir, 'client.key'), 0o644)
  chmodSync(join(dir, 'state/overlay.jsonl'), 0o606)
  chmodSync(join(dir, 'run'), 0o777)
  t.deepEqual(await warningsOf(dir), [
    'backends.main.key: /client.key is a private key and may be read by everybody on this machine',
    'backends.forwarded.key: /client.key is a private key and may be read by everybody on this machine',
    'registries.main.state: /state/overlay.jsonl may be changed by everybody on this machine',
    'admin.socket: /run may be changed by everybody on this machine',
  ])
})

test('a domain that names a policy which its registry does not have is refused', async (t) => {
  const dir = join(folderFor(t), 'gate')
  init(dir, () => {})
  write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:8883" } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: pki/server.pem, key: pki/server.key } ]
    registry: main
    clientTrust: { mode: registry-or-ca, ca: [ pki/ca.pem ], policies: [ gone ] }
    backend: main
backends: { main: { kind: embedded } }
registries: { main: { path: registry } }
`,
  )
  t.deepEqual(await warningsOf(dir), ['domains[0].clientTrust.policies: the registry main has no policy gone'])
})

test('tickets that only one of several workers can open are warned of, where keys cannot be shared', async (t) => {
  const dir = join(folderFor(t), 'gate')
  init(dir, () => {})
  const settings = (workers: number, enabled: boolean) => `listeners: [ { bind: "127.0.0.1:8883" } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: pki/server.pem, key: pki/server.key } ]
    registry: main
    sessionTickets: { enabled: ${enabled} }
    backend: main
backends: { main: { kind: embedded } }
registries: { main: { path: registry } }
workers: ${workers}
`
  const warned = async (workers: number, enabled: boolean) => {
    write(dir, 'brokergate.yaml', settings(workers, enabled))
    return (await warningsOf(dir)).filter((line) => line.startsWith('domains[0].sessionTickets: ')).length
  }
  t.is(await warned(2, true), TICKET_FACTS[TLS_RUNTIME].sharesKeys ? 0 : 1)
  t.is(await warned(1, true), 0)
  t.is(await warned(2, false), 0)
})
