// As a container runs it with everything taken away: user nobody, no capabilities, no new privileges, a read-only file
// system, a seccomp filter like the default one. It starts, serves a device, follows its registry, answers commands and
// drains; and where it lacks a folder to write to, it says which.
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import test from 'ava'
import { ask } from '../../src/cli/certs.ts'
import { confined, NOBODY, whyNotConfined } from '../support/confined.ts'
import { ca, device, eventually, knock, mqttClient, server, sleep } from '../support/e2e.ts'
import { issueServer } from '../support/pki.ts'
import { folderFor, freePort, startProxy, type Teardowns, write } from '../support/proxy.ts'

const why = whyNotConfined()
const whenConfined = why === null ? test.serial : test.skip
if (why !== null) console.log(`not confined here: ${why}`)

const POLICY = (resource: string) => `policies:
  devices: { Version: "2012-10-17", Statement: [ { Effect: Allow, Action: "iot:*", Resource: "${resource}" } ] }
`

/** A configuration that nobody may read and only its folders `run` and `state` may be written by nobody. */
async function house(t: Teardowns, workers: number) {
  const dir = folderFor(t)
  const [port, metricsPort] = [await freePort(), await freePort()]
  write(dir, 'ca.pem', ca.certPem)
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  write(dir, 'registry/policies.yaml', POLICY('*'))
  const writable = ['run', 'state'].map((name) => join(dir, name))
  for (const folder of writable) mkdirSync(folder, { mode: 0o700 })
  const file = write(
    dir,
    'brokergate.yaml',
    `listeners: [ { bind: "127.0.0.1:${port}", as: 8883 } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    clientTrust: { mode: registry-or-ca, ca: [ ca.pem ], policies: [ devices ] }
    backend: main
registries: { main: { path: registry, state: state } }
backends: { main: { kind: embedded } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: run/admin.sock }
workers: ${workers}
drain: { grace: 5s }
log: { format: json }
${process.env.TRANSPORT === undefined ? '' : `transport: ${process.env.TRANSPORT}\n`}`,
  )
  execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, dir])
  chmodSync(dir, 0o700)
  return { dir, file, port, metricsPort, writable, prefix: confined(folderFor(t), writable) }
}

/** The processes themselves, from what they log: what was started are the words before them, which pass no signal on. */
async function startConfined(t: Teardowns, ...rest: [file: string, metricsPort: number, prefix: string[]]) {
  const [file, metricsPort, prefix] = rest
  const proxy = await startProxy(t, file, metricsPort, { prefix })
  const pids = [...new Set(proxy.lines().flatMap(({ pid, workerPid }) => [pid, workerPid]))].filter(
    (pid): pid is number => typeof pid === 'number',
  )
  t.teardown(() => {
    for (const pid of pids) if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL')
  })
  const exited = new Promise<number | null>((resolve) => proxy.child.once('exit', resolve))
  return {
    proxy,
    pids,
    drained(): Promise<number | null> {
      process.kill(Number(proxy.lines().find(({ message }) => message === 'ready')?.pid), 'SIGTERM')
      return exited
    },
  }
}

/** SHA-256 of the certificate that the server shows. */
const shown = (port: number): Promise<string | null> =>
  new Promise((resolve) => {
    const socket = connectTls({ host: '127.0.0.1', port, servername: 'localhost', ca: ca.certPem }, () => {
      resolve(socket.getPeerX509Certificate()?.fingerprint256 ?? null)
      socket.destroy()
    })
    socket.on('error', () => resolve(null))
  })

const facts = (pid: number): Readonly<Record<string, string>> =>
  Object.fromEntries(
    readFileSync(`/proc/${pid}/status`, 'utf8')
      .split('\n')
      .map((line) => line.split(/:\s+/, 2) as [string, string]),
  )

whenConfined(
  'the walls of these tests hold: nothing can be written, no namespace be made, no file system mounted',
  async (t) => {
    const { prefix, writable, dir } = await house(t, 1)
    const tried = (...command: string[]) =>
      spawnSync(prefix[0]!, [...prefix.slice(1), ...command], { encoding: 'utf8' })
    t.is(tried('touch', join(writable[0]!, 'x')).status, 0)
    for (const path of ['/tmp/brokergate-x', join(dir, 'x')]) t.regex(tried('touch', path).stderr, /Read-only/)
    t.regex(tried('unshare', '--user', 'true').stderr, /not permitted/)
    t.regex(tried('mount', '-t', 'tmpfs', 'none', '/mnt').stderr, /denied|not permitted|superuser/)
    t.regex(tried('cat', '/proc/self/status').stdout, /^Seccomp:\t2$/m)
  },
)

for (const workers of [1, 2]) {
  whenConfined(`with ${workers} worker(s): starts, serves, follows its registry, is asked and drains`, async (t) => {
    const { dir, file, port, metricsPort, prefix } = await house(t, workers)
    const env = ['env', `TMPDIR=${join(dir, 'run')}`]
    const { proxy, pids, drained } = await startConfined(t, file, metricsPort, [...env, ...prefix])
    t.is(pids.length, workers === 1 ? 1 : 1 + workers)
    for (const pid of pids) {
      const { Uid, Gid, CapPrm, CapEff, CapBnd, CapAmb, NoNewPrivs, Seccomp } = facts(pid)
      t.regex(Uid!, /^65534\s/)
      t.regex(Gid!, /^65534\s/)
      for (const capabilities of [CapPrm, CapEff, CapBnd, CapAmb]) t.regex(capabilities!, /^0+$/)
      t.deepEqual([NoNewPrivs, Seccomp], ['1', '2'])
    }
    // What the runtime lacks of a TLS policy is no matter of rights.
    const warnings = proxy
      .lines()
      .filter(({ level, message }) => level === 'warn' && !/served without/.test(`${message}`))
    t.deepEqual(warnings, [])

    const client = await mqttClient(t, port, { clientId: 'confined' })
    const heard: string[] = []
    client.on('message', (_, payload) => heard.push(payload.toString()))
    await client.subscribeAsync('a/#', { qos: 1 })
    await client.publishAsync('a/b', 'it works', { qos: 1 })
    await eventually(() => heard.includes('it works'), 'the message')

    // Written by the operator, in a folder that the process itself cannot write to.
    const allow = (resource: string) => {
      write(dir, 'registry/policies.yaml', POLICY(resource))
      execFileSync('chown', [`${NOBODY}:${NOBODY}`, join(dir, 'registry/policies.yaml')])
    }
    const publish = () => client.publishAsync('a/b', 'again', { qos: 1 }).catch(() => {})
    allow('arn:aws:iot:us-east-1:000000000000:nothing')
    await eventually(async () => {
      await Promise.race([publish(), sleep(200)])
      return !client.connected
    }, 'the end of a session that may do nothing any more')
    allow('*')
    await eventually(
      () =>
        knock(port, 'again').then(
          ({ leave }) => {
            leave()
            return true
          },
          () => false,
        ),
      'a device that may connect again',
    )
    // Another certificate of the server, and its key.
    const renewed = issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1'] })
    write(dir, 'server.pem', renewed.chainPem)
    write(dir, 'server.key', renewed.keyPem)
    process.kill(Number(proxy.lines().find(({ message }) => message === 'ready')?.pid), 'SIGHUP')
    await eventually(async () => (await shown(port)) === renewed.cert.fingerprint256, 'the new certificate')
    const fingerprint = device.cert.fingerprint256.replaceAll(':', '').toLowerCase()
    const decision = { registry: 'main', certificate: fingerprint, status: 'REVOKED' }
    t.like(await ask(join(dir, 'run/admin.sock'), '/certificates', 'POST', decision), { kind: 'answer', status: 200 })
    t.regex(readFileSync(join(dir, 'state/overlay.jsonl'), 'utf8'), /REVOKED/)

    t.is(await drained(), 0, proxy.output())
    t.true(
      proxy.lines().some(({ message, code }) => message === 'ended' && code === 0),
      proxy.output(),
    )
    t.notRegex(proxy.output(), /unhandled|uncaught|EROFS|EPERM/i)
  })
}

whenConfined(
  'an embedded broker without a folder for its socket is refused, and the line says what to set',
  async (t) => {
    const { file, prefix } = await house(t, 1)
    const main = join(import.meta.dirname, '../../src/main.ts')
    const command = [...prefix.slice(1), process.execPath, main, 'run', '-c', file]
    const { status, stdout } = spawnSync(prefix[0]!, command, { encoding: 'utf8', timeout: 60_000 })
    t.is(status, 1)
    t.regex(stdout, /not started: .*TMPDIR.*EROFS/)
  },
)

whenConfined('a backend elsewhere needs no folder for temporary files', async (t) => {
  const { file, metricsPort, prefix } = await house(t, 1)
  const elsewhere = 'kind: tcp, servers: [ { address: "127.0.0.1:1" } ]'
  writeFileSync(file, readFileSync(file, 'utf8').replace('kind: embedded', elsewhere))
  const { proxy, drained } = await startConfined(t, file, metricsPort, prefix)
  t.is(await drained(), 0, proxy.output())
})
