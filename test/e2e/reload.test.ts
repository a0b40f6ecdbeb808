// A reload is the moment in which a gate with thousands of sessions can drop all of them, serve half of the old settings
// and half of the new, or go on with settings that nobody wrote. Each test changes what runs and looks at who notices.

import { once } from 'node:events'
import { renameSync, rmSync, symlinkSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { ca, device, eventually, knock, PINGREQ, PINGRESP, server, startSink } from '../support/e2e.ts'
import { createCa, issueDevice, issueServer } from '../support/pki.ts'
import { freePort, write } from '../support/proxy.ts'
import { domain, living, openReloadable, type Reloadable, settled } from '../support/reloads.ts'

const other = issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1'] })

type Device = Awaited<ReturnType<typeof knock>>

/** A session that answers for as long as it lives. */
async function joins(
  t: ExecutionContext,
  port: number,
  clientId: string,
  as = device,
): Promise<Device & { closed: boolean }> {
  const opened = await knock(port, clientId, { as })
  const joined = Object.assign(opened, { closed: false })
  opened.socket.on('close', () => {
    joined.closed = true
  })
  t.teardown(() => opened.socket.destroy())
  return joined
}

/** The session is there, and so is its way to the broker. */
async function answers({ socket }: Device): Promise<boolean> {
  const answered = once(socket, 'data') as Promise<[Buffer]>
  socket.resume()
  socket.write(PINGREQ)
  const [packet] = await answered
  socket.pause()
  return packet.equals(PINGRESP)
}

/** SHA-256 of the certificate that is served now. */
function served(port: number, servername = 'localhost'): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host: '127.0.0.1', port, servername, ca: ca.certPem, rejectUnauthorized: false })
    socket.once('error', reject)
    socket.once('secureConnect', () => {
      resolve(socket.getPeerX509Certificate()!.fingerprint256)
      socket.destroy()
    })
  })
}

const fingerprint = (issued: { readonly cert: { readonly fingerprint256: string } }) => issued.cert.fingerprint256

for (const workers of [1, 2]) {
  const on = `on ${workers} worker${workers === 1 ? '' : 's'}`

  test.serial(`a new certificate is served by the next handshake, and a session goes on, ${on}`, async (t) => {
    const broker = await startSink(t)
    const gate = await openReloadable(t, { workers, brokerPort: broker.port })
    const before = await joins(t, gate.port, 'before')
    t.is(await served(gate.port), fingerprint(server))
    write(gate.dir, 'server.pem', other.chainPem)
    write(gate.dir, 'server.key', other.keyPem)
    const { code, printed } = await gate.reload()
    t.is(code, 0, printed)
    t.regex(printed, /^generation 2 is in force; changed: .*server\.pem/)
    for (let n = 0; n < 8; n++) t.is(await served(gate.port), fingerprint(other))
    t.true(await answers(before))
    t.deepEqual(await living(gate), [1, 2])
    before.leave()
    await settled(gate, 2)
    t.is(await gate.proxy.metric('brokergate_config_generation'), 2)
    t.is(await gate.proxy.metric('brokergate_config_reloads_total{result="done"}'), 1)
  })

  test.serial(`what is wrong is told with file and line, and changes nothing, ${on}`, async (t) => {
    const broker = await startSink(t)
    const gate = await openReloadable(t, { workers, brokerPort: broker.port })
    const before = await joins(t, gate.port, 'before')
    gate.configure({ domains: domain('    tlsPolicy: none\n') })
    const { code, printed } = await gate.reload()
    t.is(code, 1, printed)
    t.regex(printed, /brokergate\.yaml:9:\d+: domains\[0\]\.tlsPolicy: expected one of/)
    t.regex(printed, /refused; generation 1 goes on/)
    // What is wrong with the contents of a file is found by the processes that serve.
    gate.configure()
    write(gate.dir, 'server.key', other.keyPem)
    const mismatch = await gate.reload()
    t.is(mismatch.code, 1)
    t.regex(mismatch.printed, /domains\[0\] \(localhost\): .*server\.key is not the key of .*server\.pem/)
    t.is(await served(gate.port), fingerprint(server))
    t.true(await answers(before))
    t.deepEqual(await living(gate), [1])
    t.is(await gate.proxy.metric('brokergate_config_reloads_total{result="refused"}'), 2)
    t.is(await gate.proxy.metric('brokergate_config_generation'), 1)
    write(gate.dir, 'server.key', server.keyPem)
    const same = await gate.reload()
    t.deepEqual(same, { code: 0, printed: 'generation 1 is in force; nothing has changed\n' })
  })

  test.serial(`another backend is for new sessions; those that are there stay where they are, ${on}`, async (t) => {
    const [first, second] = [await startSink(t), await startSink(t)]
    const gate = await openReloadable(t, { workers, brokerPort: first.port })
    const before = await joins(t, gate.port, 'before')
    gate.configure({ backends: `  main: { kind: tcp, servers: [ { address: "127.0.0.1:${second.port}" } ] }` })
    t.is((await gate.reload()).code, 0)
    const after = await joins(t, gate.port, 'after')
    t.deepEqual([first.live.size, second.live.size], [1, 1])
    t.true(await answers(before))
    t.true(await answers(after))
    // The backend that nobody names any more ends with its last session.
    before.leave()
    await eventually(() => first.live.size === 0, 'the end at the first broker')
    await settled(gate, 2)
    t.true(await answers(after))
  })

  test.serial(
    `listeners are added, changed and removed, and one that cannot be bound refuses all, ${on}`,
    async (t) => {
      const broker = await startSink(t)
      const gate = await openReloadable(t, { workers, brokerPort: broker.port })
      const [added, taken] = [await freePort(), await freePort()]
      const occupant = createServer().listen(taken, '127.0.0.1')
      await once(occupant, 'listening')
      t.teardown(() => occupant.close())
      const bind = (port: number) => `  - { bind: "127.0.0.1:${port}", as: 8883 }\n`
      const old = await joins(t, gate.port, 'old')
      gate.configure({ listeners: bind(gate.port) + bind(added) + bind(taken) })
      const refused = await gate.reload()
      t.is(refused.code, 1)
      t.regex(refused.printed, /listeners\[2\]\.bind: 127\.0\.0\.1 port \d+: .*(EADDRINUSE|in use)/)
      await t.throwsAsync(knock(added, 'nobody'))
      gate.configure({ listeners: bind(gate.port) + bind(added) })
      t.is((await gate.reload()).code, 0)
      const both = [await joins(t, gate.port, 'a'), await joins(t, added, 'b')]
      gate.configure({ listeners: bind(added) })
      t.is((await gate.reload()).code, 0)
      await eventually(
        () =>
          knock(gate.port, 'late').then(
            () => false,
            () => true,
          ),
        'the end of the first listener',
      )
      const last = await joins(t, added, 'c')
      for (const one of [old, ...both, last]) t.true(await answers(one))
    },
  )

  test.serial(`a CA that is removed ends the sessions that it alone vouched for, ${on}`, async (t) => {
    const broker = await startSink(t)
    const secondCa = createCa({ commonName: 'second fleet' })
    const second = issueDevice(secondCa, { commonName: 'device-2' })
    const trust = (cas: string) => domain().replace('ca: [ ca.pem ]', `ca: [ ${cas} ]`)
    const gate = await openReloadable(t, {
      workers,
      brokerPort: broker.port,
      files: { 'second.pem': secondCa.certPem },
      config: () => ({ domains: trust('ca.pem, second.pem') }),
    })
    const stays = await joins(t, gate.port, 'stays')
    const goes = await joins(t, gate.port, 'goes', second)
    goes.socket.resume()
    gate.configure({ domains: trust('ca.pem') })
    t.is((await gate.reload()).code, 0)
    await eventually(() => goes.closed, 'the end of the session')
    t.true(await answers(stays))
    await t.throwsAsync(knock(gate.port, 'again', { as: second }))
    t.is(await gate.proxy.metric('brokergate_connections_closed_total{reason="certificate_untrusted_ca"}'), 2)
    stays.leave()
    await settled(gate, 2)
  })

  test.serial(`a domain that is removed ends its sessions, one that is disabled keeps them, ${on}`, async (t) => {
    const broker = await startSink(t)
    const names = issueServer(ca, { serverNames: ['localhost', 'two.test'], ips: ['127.0.0.1'] })
    const two = domain().replace('localhost', 'two.test')
    const gate = await openReloadable(t, {
      workers,
      brokerPort: broker.port,
      files: { 'server.pem': names.chainPem, 'server.key': names.keyPem },
      config: () => ({ domains: domain() + two }),
    })
    const stays = await joins(t, gate.port, 'stays')
    const asTwo = await knockAs(t, gate, 'two.test', 'two')
    gate.configure({ domains: domain() + two.replace('backend: main', 'backend: main\n    status: disabled') })
    t.is((await gate.reload()).code, 0)
    t.true(await answers(asTwo))
    await t.throwsAsync(knockAs(t, gate, 'two.test', 'late'))
    gate.configure({ domains: domain() })
    t.is((await gate.reload()).code, 0)
    asTwo.socket.resume()
    await eventually(() => asTwo.socket.destroyed, 'the end of the session of the removed domain')
    t.true(await answers(stays))
    t.is(await gate.proxy.metric('brokergate_connections_closed_total{reason="authorization_ended"}'), 1)
  })

  test.serial(`policies of another registry count for live sessions, ${on}`, async (t) => {
    const broker = await startSink(t)
    const narrow = `policies:
  devices: { Version: "2012-10-17", Statement: [ { Effect: Allow, Action: "iot:*", Resource: "arn:aws:iot:us-east-1:000000000000:client/kept" } ] }
`
    const gate = await openReloadable(t, {
      workers,
      brokerPort: broker.port,
      files: { 'narrow/policies.yaml': narrow, 'broken/policies.yaml': 'policies: [ nonsense' },
    })
    const [kept, goes] = [await joins(t, gate.port, 'kept'), await joins(t, gate.port, 'goes')]
    gate.configure({ registries: '  main: { path: broken }' })
    const refused = await gate.reload()
    t.is(refused.code, 1)
    t.regex(refused.printed, /broken\/policies\.yaml:1/)
    gate.configure({ registries: '  main: { path: narrow }' })
    t.is((await gate.reload()).code, 0)
    goes.socket.resume()
    await eventually(() => goes.closed, 'the end of the session that is not allowed any more')
    t.true(await answers(kept))
    t.is(await gate.proxy.metric('brokergate_connections_closed_total{reason="action_denied"}'), 1)
  })

  test.serial(
    `a Secret that Kubernetes turns to its next contents is served without a word of ours, ${on}`,
    async (t) => {
      const broker = await startSink(t)
      const at = { domains: domain().replaceAll('server.', 'tls/server.') }
      const gate = await openReloadable(t, {
        workers,
        brokerPort: broker.port,
        watch: true,
        config: () => at,
        // The folder must be there when the program starts; it becomes a mounted one below.
        files: { 'tls/server.pem': server.chainPem, 'tls/server.key': server.keyPem },
      })
      const mount = (version: string, issued: typeof server) => {
        write(gate.dir, `tls/..${version}/server.pem`, issued.chainPem)
        write(gate.dir, `tls/..${version}/server.key`, issued.keyPem)
        symlinkSync(`..${version}`, join(gate.dir, 'tls/..data_tmp'))
        renameSync(join(gate.dir, 'tls/..data_tmp'), join(gate.dir, 'tls/..data'))
      }
      const session = await joins(t, gate.port, 'before')
      mount('one', server)
      for (const name of ['server.pem', 'server.key']) {
        rmSync(join(gate.dir, 'tls', name))
        symlinkSync(join('..data', name), join(gate.dir, 'tls', name))
      }
      mount('two', other)
      await eventually(async () => (await served(gate.port)) === fingerprint(other), 'the second certificate')
      mount('three', server)
      await eventually(async () => (await served(gate.port)) === fingerprint(server), 'the third certificate')
      t.true(await answers(session))
    },
  )

  test.serial(`SIGHUP reloads, and never ends a process, ${on}`, async (t) => {
    const broker = await startSink(t)
    const gate = await openReloadable(t, { workers, brokerPort: broker.port })
    const session = await joins(t, gate.port, 'before')
    write(gate.dir, 'server.pem', other.chainPem)
    write(gate.dir, 'server.key', other.keyPem)
    for (const { pid } of (await gate.status()).workers) process.kill(pid, 'SIGHUP')
    gate.proxy.child.kill('SIGHUP')
    await eventually(async () => (await gate.status()).generation === 2, 'the second generation')
    t.is(await served(gate.port), fingerprint(other))
    t.true(await answers(session))
    // While it drains it is told, and nothing else.
    gate.proxy.child.kill('SIGTERM')
    await gate.proxy.until(() => gate.proxy.lines().some(({ message }) => message === 'draining'), 'the drain')
    gate.proxy.child.kill('SIGHUP')
    session.socket.resume()
    const { code, signal } = await gate.proxy.stop()
    t.true(signal === null, `ended by ${signal}`)
    t.is(typeof code, 'number')
  })

  test.serial(`what needs a restart is refused with its place, ${on}`, async (t) => {
    const broker = await startSink(t)
    const gate = await openReloadable(t, { workers, brokerPort: broker.port })
    gate.configure({ rest: 'ticketKeys: { rotation: 1h }' })
    const { code, printed } = await gate.reload()
    t.is(code, 1)
    t.regex(printed, /brokergate\.yaml:\d+:\d+: ticketKeys\.rotation: needs a restart to be changed/)
  })
}

async function knockAs(t: ExecutionContext, gate: Reloadable, servername: string, clientId: string): Promise<Device> {
  const opened = await knock(gate.port, clientId, { servername })
  t.teardown(() => opened.socket.destroy())
  return opened
}

test.serial('a worker that is killed is replaced by one with the settings in force, whatever is on disk', async (t) => {
  const broker = await startSink(t)
  const gate = await openReloadable(t, { workers: 2, brokerPort: broker.port })
  write(gate.dir, 'server.pem', other.chainPem)
  write(gate.dir, 'server.key', other.keyPem)
  t.is((await gate.reload()).code, 0)
  write(gate.dir, 'server.key', 'no key at all')
  write(gate.dir, 'brokergate.yaml', 'listeners: [')
  const [victim] = (await gate.status()).workers
  process.kill(victim!.pid, 'SIGKILL')
  await eventually(async () => {
    const { workers } = await gate.status()
    return workers.length === 2 && workers.every(({ pid, generations }) => pid !== victim!.pid && generations[0] === 2)
  }, 'the other worker')
  for (let n = 0; n < 16; n++) t.is(await served(gate.port), fingerprint(other))
})
