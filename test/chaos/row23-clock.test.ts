// A clock that steps, as an NTP daemon or a resumed virtual machine makes it. What people sign is judged by the wall clock;
// what the door waits for must not be.
import { renameSync } from 'node:fs'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import { presign } from '../../src/auth/sigv4-sign.ts'
import { ca, eventually, sleep } from '../support/e2e.ts'
import { ACCESS_KEY, FAKETIME, REGION } from '../support/gateway.ts'
import { folderFor, write } from '../support/proxy.ts'
import { startFleet } from './fleet.ts'
import { Link } from './fleet-device.ts'
import { row } from './row.ts'
import { PATIENT } from './settings.ts'

const STEP_SECONDS = 600
const STEPS = [STEP_SECONDS, -STEP_SECONDS, 0] as const
const KEEP_ALIVE_SECONDS = 2
const LIVE = 50

row(
  {
    number: 23,
    title: 'clock',
    required: 'SigV4 refuses and accepts by the stepped clock, keep alive and deadlines do not notice',
    seconds: 15,
  },
  async ({ t, start }) => {
    const dir = folderFor(t)
    /** Seen by the program at its next look at the clock; never half-written. */
    const step = (seconds: number) => {
      write(dir, 'next', `${seconds < 0 ? '' : '+'}${seconds}\n`)
      renameSync(join(dir, 'next'), join(dir, 'clock'))
    }
    step(0)
    const { proxy, ports } = await start({
      extra: PATIENT,
      // The broker cuts whom it does not hear, too, and sometimes first; here it leaves that to the door.
      toward: ', identity: { keepAlive: 0 }',
      prefix: [
        'env',
        `LD_PRELOAD=${FAKETIME}`,
        `FAKETIME_TIMESTAMP_FILE=${join(dir, 'clock')}`,
        'FAKETIME_NO_CACHE=1',
        'FAKETIME_DONT_FAKE_MONOTONIC=1',
      ],
    })
    const context = createSecureContext({ ca: ca.certPem })
    let count = 0
    /** With a URL that was signed so many seconds from now. */
    const signedAt = async (seconds: number): Promise<string> => {
      const link = new Link(
        {
          host: '127.0.0.1',
          port: ports.web,
          serverName: 'localhost',
          context,
          alpn: null,
          version: 5,
          clientId: `signed-${count++}`,
          keepAliveSeconds: 60,
          username: null,
          password: null,
          clean: true,
          localAddress: null,
          webSocket: presign({
            host: 'localhost',
            path: '/mqtt',
            accessKeyId: ACCESS_KEY.id,
            secret: ACCESS_KEY.secret,
            sessionToken: null,
            region: REGION,
            service: 'iotdevicegateway',
            at: new Date(Date.now() + seconds * 1_000),
            expiresSeconds: null,
          }),
          withinMs: 20_000,
        },
        { packet() {}, ended() {} },
      )
      const outcome = await link.attempt
      link.leave()
      return outcome
    }
    const pinging = await startFleet(t, {
      port: ports.mqtt,
      prefix: 'pinging',
      keepAliveSeconds: KEEP_ALIVE_SECONDS,
      pingEveryMs: 1_000,
    })
    t.is((await pinging.grow(LIVE)).in, LIVE)
    const timeouts = () => proxy.metric('brokergate_connections_closed_total{reason="keep_alive_timeout"}')

    let now = 0
    const answers: string[] = []
    for (const next of STEPS) {
      const silent = await startFleet(t, {
        port: ports.mqtt,
        prefix: `silent-${answers.length}`,
        keepAliveSeconds: KEEP_ALIVE_SECONDS,
      })
      t.is((await silent.grow(1)).in, 1)
      const from = performance.now()
      const reapedBefore = await timeouts()
      step(next)
      const seen = await eventually(() => {
        // Some line is written under the new clock as soon as somebody comes and goes.
        const last = proxy.lines().at(-1)
        const offset = last === undefined ? Number.NaN : (Date.parse(String(last.time)) - Date.now()) / 1_000
        if (Math.abs(offset - next) < 60) return { offset }
        void signedAt(next)
        return sleep(200).then(() => null)
      }, `the step to ${next} s`)
      const offBy = next === now ? 0 : now
      t.is(await signedAt(next), 'in', `signed by the clock of ${next}`)
      if (offBy !== next) {
        const old = await signedAt(offBy)
        t.is(old, 'closed status 403', `signed by the clock of ${offBy} at ${next}`)
        answers.push(`${offBy} s at ${next} s: 403`)
      }
      // The silent one is cut for its silence and for nothing else: not at the step, and not ten minutes late.
      await eventually(async () => (await timeouts()) > reapedBefore, 'the silent one reaped', 20_000)
      t.is(await timeouts(), reapedBefore + 1, 'nobody else')
      const reapedMs = performance.now() - from
      t.true(reapedMs > KEEP_ALIVE_SECONDS * 1_000, `reaped after ${reapedMs} ms at the step to ${next}`)
      t.true(Number.isFinite(seen.offset))
      now = next
    }
    const report = await pinging.report()
    t.is(report.in, LIVE, JSON.stringify(report.endings))
    t.deepEqual(report.endings, {})
    await pinging.go('leave')
    return {
      injected: `steps of the wall clock to ${STEPS.join(', ')} s while running`,
      seen: `signed by the old clock: ${answers.join('; ')}; by the new one: let in each time; ${LIVE} sessions with a keep alive of ${KEEP_ALIVE_SECONDS} s lived through all, silent ones were cut in time`,
    }
  },
)
