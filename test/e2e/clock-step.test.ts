// Somebody sets the clock of a running gateway, or NTP does. What is signed with a time is judged by the new one from then on;
// but no keep alive, deadline or rest may be moved by it: a fleet that is cut off because a clock jumped comes back at once.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { presign } from '../../src/auth/sigv4-sign.ts'
import { eventually, sleep } from '../support/e2e.ts'
import { ACCESS_KEY, openGateway, REGION, raw, VECTOR_HOST } from '../support/gateway.ts'
import { folderFor } from '../support/proxy.ts'
import { rawDevice } from '../support/raw-mqtt.ts'

const KEEP_ALIVE_SECONDS = 4
const UPGRADE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n'

/** HTTP status of an upgrade that was signed with this clock. */
async function signedAt(port: number, at: Date): Promise<number> {
  const target = presign({
    host: VECTOR_HOST,
    path: '/mqtt',
    accessKeyId: ACCESS_KEY.id,
    secret: ACCESS_KEY.secret,
    sessionToken: null,
    region: REGION,
    service: 'iotdevicegateway',
    at,
    expiresSeconds: null,
  })
  const send = `GET ${target} HTTP/1.1\r\nHost: ${VECTOR_HOST}\r\n${UPGRADE}\r\n`
  const { text } = await raw(port, { servername: VECTOR_HOST, send, enough: 12 })
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1] ?? 0)
}

test.serial(
  'the wall clock is set by ten minutes, ahead and back: signatures follow it, sessions and timers do not',
  async (t) => {
    t.timeout(150_000)
    const clockFile = join(folderFor(t), 'clock')
    const shift = (seconds: number) => writeFileSync(clockFile, `${seconds < 0 ? '' : '+'}${seconds}\n`)
    shift(0)
    const gateway = await openGateway(t, { clockFile, toward: ', identity: { keepAlive: 0 }' })
    const { mqtt, web } = gateway.ports
    const shifted = (seconds: number) => new Date(Date.now() + seconds * 1_000)
    t.is(await signedAt(web, shifted(0)), 101)

    const busy = await rawDevice(t, {
      port: mqtt,
      version: 5,
      clientId: 'busy',
      connect: { keepalive: KEEP_ALIVE_SECONDS },
    })
    await busy.hear('connack')
    const pings = setInterval(() => busy.say({ cmd: 'pingreq' }), 1_000)
    t.teardown(() => clearInterval(pings))
    for (const seconds of [600, -600, 0]) {
      const silent = await rawDevice(t, {
        port: mqtt,
        version: 5,
        clientId: `silent${seconds}`,
        connect: { keepalive: KEEP_ALIVE_SECONDS },
      })
      await silent.hear('connack')
      const since = performance.now()
      shift(seconds)
      t.is(
        await eventually(
          () => signedAt(web, shifted(seconds)).then((status) => status === 101 && status),
          'the new time',
        ),
        101,
      )
      if (seconds !== 0) t.is(await signedAt(web, shifted(0)), 403, `${seconds} s`)
      t.is(await signedAt(web, shifted(-seconds || 600)), 403, `${seconds} s`)
      await silent.end(30_000)
      const lived = (performance.now() - since) / 1_000
      t.log(`${seconds} s: a silent device lived ${lived.toFixed(1)} s with a keep alive of ${KEEP_ALIVE_SECONDS} s`)
      t.true(lived > 1.4 * KEEP_ALIVE_SECONDS, `${lived} s`)
      t.false(busy.closed)
    }
    // Another second, in which a timer that had been moved would show.
    await sleep(1_000)
    t.false(busy.closed)
    t.is(await gateway.proxy.metric('brokergate_connections_closed_total{reason="keep_alive_timeout"}'), 3)
    t.notRegex(gateway.proxy.output(), /unhandled|uncaught/i)
  },
)
