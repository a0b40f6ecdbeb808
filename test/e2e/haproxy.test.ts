// Behind a load balancer every device has the balancer's address, unless the PROXY header is read. Were it read from
// anybody, every device could have any address; were a health check counted as a failure, alarms would ring all day.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { type Door, knock, mqttClient, openDoor, startSink } from '../support/e2e.ts'
import { folderFor, freePort, type RunningProxy, write } from '../support/proxy.ts'

const TRUST = 'proxyProtocol: { trustedSources: [ 127.0.0.1/32 ] }'
/** The device's address, another than the balancer's. */
const DEVICE = '127.0.0.2'

/** HAProxy in TCP mode with one server, `options` being those of its line. Resolves with its port. */
async function startHaproxy(t: ExecutionContext, to: number, options: string): Promise<number> {
  const port = await freePort()
  const file = write(
    folderFor(t),
    'haproxy.cfg',
    `global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout check 5s
listen front
  bind 127.0.0.1:${port}
  server one 127.0.0.1:${to} ${options}
`,
  )
  const child = spawn('haproxy', ['-db', '-f', file], { stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      log += chunk.toString()
    })
  }
  const exited = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const listening = `:${port.toString(16).toUpperCase().padStart(4, '0')} 00000000:0000 0A`
  const deadline = Date.now() + 10_000
  while (!readFileSync('/proc/net/tcp', 'utf8').includes(listening)) {
    if (Date.now() > deadline || child.exitCode !== null) throw new Error(`HAProxy did not start\n${log}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return port
}

async function door(t: ExecutionContext, listener?: string): Promise<Door> {
  const sink = await startSink(t)
  const backend = `kind: tcp, servers: [ { address: "127.0.0.1:${sink.port}" } ]`
  return openDoor(t, listener === undefined ? { backend } : { backend, listener })
}

const line = (proxy: RunningProxy, reason: string): Promise<Record<string, unknown>> =>
  proxy.until(() => proxy.lines().find((found) => found.reason === reason), `a line about ${reason}`)
const hellos = (result: string): string => `brokergate_hellos_total{result="${result}"}`

for (const version of ['send-proxy', 'send-proxy-v2'] as const) {
  test.serial(`with ${version} a session works and its line names the device, not the balancer`, async (t) => {
    const { proxy, port } = await openDoor(t, { backend: 'kind: embedded', listener: TRUST })
    const front = await startHaproxy(t, port, version)
    const client = await mqttClient(t, front, { localAddress: DEVICE, clientId: 'behind' })
    const arrived = new Promise<string>((resolve) => {
      client.once('message', (_topic, payload) => resolve(payload.toString()))
    })
    await client.subscribeAsync('t', { qos: 1 })
    await client.publishAsync('t', 'through two proxies', { qos: 1 })
    t.is(await arrived, 'through two proxies')
    await client.endAsync()
    const session = await proxy.until(() => proxy.lines().find((found) => found.clientId === 'behind'), 'its line')
    t.is(session.remoteAddress, DEVICE)
  })

  test.serial(`health checks with ${version} are probes and no failures`, async (t) => {
    const { proxy, port } = await door(t, TRUST)
    await startHaproxy(t, port, `${version} check check-send-proxy inter 100ms`)
    await proxy.until(() => proxy.metric(hellos('probe')).then((n) => n >= 5), 'five probes')
    const others = (await proxy.metrics())
      .split('\n')
      .filter((row) => row.startsWith('brokergate_hellos_total{') && !/"(ok|probe)"/.test(row) && !row.endsWith(' 0'))
    t.deepEqual(others, [])
    t.false(proxy.lines().some((found) => 'event' in found && found.reason !== 'probe'))
  })
}

test.serial('a connection with nothing in it, as other health checks are, is a probe as well', async (t) => {
  const { proxy, port } = await door(t, TRUST)
  for (const leave of ['end', 'resetAndDestroy'] as const) {
    const probe = connect({ host: '127.0.0.1', port })
    probe.on('error', () => {})
    await once(probe, 'connect')
    probe[leave]()
  }
  await proxy.until(() => proxy.metric(hellos('probe')).then((n) => n === 2), 'two probes')
  t.is(await proxy.metric(hellos('proxy_header')), 0)
})

test.serial('a trusted source without a header is refused', async (t) => {
  const { proxy, port } = await door(t, TRUST)
  await t.throwsAsync(knock(port, 'direct'))
  t.is((await line(proxy, 'proxy_header')).remoteAddress, '127.0.0.1')
  t.is(await proxy.metric(hellos('proxy_header')), 1)
})

test.serial('a header is refused where none is expected, and from a source that is not trusted', async (t) => {
  const plain = await door(t)
  const front = await startHaproxy(t, plain.port, 'send-proxy-v2')
  await t.throwsAsync(knock(front, 'with a header'))
  t.is((await line(plain.proxy, 'proxy_header')).remoteAddress, '127.0.0.1')

  const trusting = await door(t, TRUST)
  const liar = connect({ host: '127.0.0.1', port: trusting.port, localAddress: DEVICE })
  t.teardown(() => liar.destroy())
  liar.on('error', () => {})
  liar.resume()
  liar.write('PROXY TCP4 10.9.8.7 10.9.8.6 1111 8883\r\n')
  await once(liar, 'close')
  t.is((await line(trusting.proxy, 'proxy_header')).remoteAddress, DEVICE)
  t.is(await trusting.proxy.metric(hellos('proxy_header')), 1)
  // Without a header it is a device like every other.
  const honest = await knock(trusting.port, 'honest', { localAddress: DEVICE })
  honest.leave()
})

test.serial("the broker is told the device's address in a PROXY header of version 2", async (t) => {
  const { promise: bytes, resolve } = Promise.withResolvers<Buffer>()
  const stub = createServer((socket) => {
    let got: Buffer = Buffer.alloc(0)
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      got = Buffer.concat([got, chunk])
      if (got.length < 30) return
      resolve(got)
      socket.write(Buffer.from([0x20, 2, 0, 0]))
    })
  })
  stub.listen(0, '127.0.0.1')
  await once(stub, 'listening')
  t.teardown(() => stub.close())
  const stubPort = (stub.address() as { port: number }).port
  const { proxy, port } = await openDoor(t, {
    backend: `kind: tcp, servers: [ { address: "127.0.0.1:${stubPort}" } ], identity: { proxyProtocol: v2 }`,
    listener: TRUST,
  })
  const front = await startHaproxy(t, port, 'send-proxy-v2')
  const device = await knock(front, 'told', { localAddress: DEVICE })
  const sourcePort = device.socket.localPort!
  const got = await bytes
  t.is(got.subarray(0, 16).toString('hex'), '0d0a0d0a000d0a515549540a2111000c')
  t.deepEqual([...got.subarray(16, 20)], [127, 0, 0, 2])
  t.deepEqual([...got.subarray(20, 24)], [127, 0, 0, 1])
  t.is(got.readUInt16BE(24), sourcePort)
  t.is(got[28], 0x10, 'CONNECT comes right after')
  device.leave()
  await proxy.until(() => proxy.lines().some((found) => found.clientId === 'told'), 'its line')
})
