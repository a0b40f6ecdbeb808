import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import type { CloseReason, ProtocolHandler, Serving } from '../src/connection.ts'
import { admissionCounters } from '../src/control/admission-metrics.ts'
import { NO_METRICS } from '../src/control/metrics.ts'
import { ProxyError } from '../src/errors.ts'
import { CAN_LIFT } from '../src/lifted/native.ts'
import { Governor } from '../src/listener/governor.ts'
import { Acceptor } from '../src/listener/listener.ts'
import { Portions } from '../src/listener/portions.ts'
import { createServe } from '../src/proxy.ts'
import { createDomains } from '../src/tls/domains.ts'
import { extension, hello, sni } from './support/hello-build.ts'
import { domainOptions } from './tls/server.ts'

const domains = createDomains({ generation: 1, domains: [domainOptions()] })

interface Ending {
  readonly address: string
  readonly reason: string
}

const NOBODY: ProtocolHandler['serve'] = () => Promise.reject(new Error('nobody gets here'))

/** The way of a connection up to TLS, and to its handler where one is given. */
async function rig(
  t: ExecutionContext,
  lift: boolean,
  connectionsPerAddress: number | null = null,
  serves: ProtocolHandler['serve'] = NOBODY,
) {
  const endings: Ending[] = []
  let held = 0
  const serve = createServe({
    metrics: NO_METRICS,
    refusedResumptions: { has: () => false },
    governor: new Governor({
      settings: {
        full: { inFlight: 8, perSecond: null },
        resumed: { inFlight: 8, perSecond: null },
        queue: { size: 8, timeout: 5_000 },
        perAddress: { connections: connectionsPerAddress, inFlight: null, ipv6Prefix: 64 },
      },
      counters: admissionCounters(),
      waited() {},
    }),
    penalties: { check() {}, refused() {} },
    turns: { hello: new Portions(8), secured: new Portions(8) },
    closing: new AbortController().signal,
    enter() {
      held++
      const handler = { protocol: 'mqtt' as const, serve: serves }
      return { generation: { domains, lift, handlers: { mqtt: handler, https: handler } }, leave: () => held-- }
    },
    ended: ({ remoteAddress }, _, reason) => endings.push({ address: remoteAddress, reason }),
  })
  const acceptor = new Acceptor({ full: () => null, roomy: () => true }, NO_METRICS, serve)
  const options = {
    host: '127.0.0.1',
    port: 0,
    as: 8883,
    proxyProtocol: { versions: [1], trusts: () => true },
    helloTimeoutMs: 5_000,
    lift,
  } as const
  /** Numbers of the connections whose socket has been closed, in that order. */
  const closed: number[] = []
  let accepted = 0
  const { port, close } = await acceptor.listen(options, (socket) => {
    const number = accepted++
    socket.once('close', () => closed.push(number))
    acceptor.serve(socket, options)
  })
  t.teardown(close)
  return { port, acceptor, endings, closed, held: () => held }
}

/** What a device that never hangs up is told, until our side ends. */
async function told(t: ExecutionContext, port: number, bytes: Buffer): Promise<{ device: Socket; heard: number[] }> {
  const device = connect({ port, host: '127.0.0.1', allowHalfOpen: true }, () => device.write(bytes))
  t.teardown(() => device.destroy())
  const heard: Buffer[] = []
  device.on('data', (chunk: Buffer) => heard.push(chunk))
  await new Promise<void>((resolve, reject) => {
    device.once('end', resolve)
    device.once('error', reject)
  })
  return { device, heard: [...Buffer.concat(heard)] }
}

const PROXY_HEADER = Buffer.from('PROXY TCP4 203.0.113.9 192.0.2.1 5555 8883\r\n')
const KNOWN = hello({ extensions: [sni('a.example')] })
const UNKNOWN = hello({ extensions: [sni('nobody.example')] })
/** With early data, which follows at once. RFC 8446 §4.2.10. */
const EARLY = hello({ extensions: [sni('nobody.example'), extension(42, Buffer.alloc(0))] })
const ALERT = [0x15, 3, 3, 0, 2, 2]

/** The test's own timeout is the limit. */
const until = async (isSo: () => boolean) => {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 5))
}

for (const lift of CAN_LIFT ? [false, true] : [false]) {
  const transport = lift ? 'lifted' : 'portable'
  for (const [what, connections, bytes, reason, alert] of [
    ['an unknown server name', null, UNKNOWN, 'ERR_SNI_UNKNOWN', [...ALERT, 112]],
    ['no room for its address', 0, KNOWN, 'ERR_ADDRESS_CONNECTIONS', []],
  ] as const) {
    test(`${transport}: ${what} after a hello alone is the end at once, of the address that the device has`, async (t) => {
      const { port, acceptor, endings, closed, held } = await rig(t, lift, connections)
      // Listened to until it hangs up, or for a second; neither does.
      await told(t, port, Buffer.concat([PROXY_HEADER, EARLY]))
      const { heard } = await told(t, port, Buffer.concat([PROXY_HEADER, bytes]))
      t.deepEqual(heard, alert)
      await until(() => acceptor.live === 0)
      t.deepEqual(closed, [1, 0])
      t.deepEqual(endings[1], { address: '203.0.113.9', reason })
      t.is(held(), 0)
    })
  }

  test(`${transport}: who announced early data is listened to, so that the alert is not lost`, async (t) => {
    const { port, acceptor, endings } = await rig(t, lift)
    const { device, heard } = await told(t, port, Buffer.concat([PROXY_HEADER, EARLY]))
    t.deepEqual(heard, [...ALERT, 112])
    t.is(acceptor.live, 1)
    device.write(Buffer.alloc(1_000, 0x17))
    device.end()
    await until(() => acceptor.live === 0)
    t.deepEqual(endings, [{ address: '203.0.113.9', reason: 'ERR_SNI_UNKNOWN' }])
  })
  for (const [what, over, reason] of [
    ['in good order', 'upstream', 'upstream'],
    ['by a fault', new ProxyError('ERR_INTERNAL', 'broken'), 'ERR_INTERNAL'],
  ] as const) {
    test(`${transport}: what is served ${what} ends once, and its generation is left with it`, async (t) => {
      const { promise, resolve } = Promise.withResolvers<CloseReason | ProxyError>()
      const serving = Promise.withResolvers<void>()
      const serve = async (): Promise<Serving> => {
        serving.resolve()
        return { over: promise }
      }
      const { port, acceptor, endings, held } = await rig(t, lift, null, serve)
      const socket = connect({ port, host: '127.0.0.1' }, () => socket.write(PROXY_HEADER))
      const device = connectTls({ socket, servername: 'a.example', rejectUnauthorized: false })
      t.teardown(() => device.destroy())
      await serving.promise
      t.is(held(), 1)
      t.deepEqual(endings, [])
      resolve(over)
      await until(() => held() === 0)
      t.deepEqual(endings, [{ address: '203.0.113.9', reason }])
      device.destroy()
      await until(() => acceptor.live === 0)
      t.is(held(), 0)
    })
  }
}
