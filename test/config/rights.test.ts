import { chmodSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { loadSettings } from '../../src/config/load.ts'
import { folderFor, write } from '../support/proxy.ts'

const config = (password: string) => `listeners: [ { bind: "127.0.0.1:8883" } ]
include: [ more ]
domains: [ { serverNames: [ localhost ], certificates: [ { cert: server.pem, key: server.key } ], registry: main, backend: main } ]
backends:
  main:
    kind: tcp
    servers: [ { address: "127.0.0.1:1883" } ]
    identity: { username: gate, password: ${password} }
registries: { main: { path: registry } }
`

function warningsOf(t: ExecutionContext, password: string, modes: Readonly<Record<string, number>>, env = {}) {
  const dir = folderFor(t)
  for (const name of ['server.pem', 'server.key']) write(dir, name, 'x')
  write(dir, 'secret', 'x')
  write(dir, 'more/log.yaml', 'log: { level: warn }\n')
  mkdirSync(join(dir, 'registry'))
  write(dir, 'brokergate.yaml', config(password))
  for (const [name, mode] of Object.entries(modes)) chmodSync(join(dir, name), mode)
  const loaded = loadSettings(join(dir, 'brokergate.yaml'), env)
  if (loaded.kind === 'invalid') throw new Error(JSON.stringify(loaded.issues))
  return loaded.warnings.map((line) => line.replaceAll(dir, ''))
}

test('a configuration that everybody may read is nothing to warn of while no secret is written out in it', (t) => {
  const modes = { 'brokergate.yaml': 0o644, 'more/log.yaml': 0o644, secret: 0o640 }
  t.deepEqual(warningsOf(t, '{ file: secret }', modes), [])
  t.deepEqual(warningsOf(t, '{ env: SECRET }', modes, { SECRET: 'x' }), [])
  t.deepEqual(warningsOf(t, 'x', modes), [
    '/brokergate.yaml:8:43: backends.main.identity.password: /brokergate.yaml holds a secret and may be read by everybody on this machine',
  ])
  t.deepEqual(warningsOf(t, 'x', { 'brokergate.yaml': 0o640 }), [])
})

test('a secret from the environment over one in a file leaves the file as it is', (t) => {
  const env = { BROKERGATE_BACKENDS__MAIN__IDENTITY__PASSWORD: 'y' }
  t.deepEqual(warningsOf(t, '{ file: secret }', { secret: 0o644 }, env), [])
})

test('a file that holds a secret is warned of when everybody may read it, by the setting that names it', (t) => {
  t.deepEqual(warningsOf(t, '{ file: secret }', { secret: 0o604 }), [
    '/brokergate.yaml:8:51: backends.main.identity.password: /secret holds a secret and may be read by everybody on this machine',
  ])
})

test('settings that everybody may change are warned of, those that are included and their folders, too', (t) => {
  t.deepEqual(warningsOf(t, '{ file: secret }', { 'brokergate.yaml': 0o606, 'more/log.yaml': 0o602, more: 0o777 }), [
    '/brokergate.yaml may be changed by everybody on this machine',
    '/more may be changed by everybody on this machine',
    '/more/log.yaml may be changed by everybody on this machine',
    '/more/log.yaml may be replaced by everybody on this machine: /more may be written',
  ])
})
