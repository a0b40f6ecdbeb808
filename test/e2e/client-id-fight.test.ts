// Two devices were given one client id, and each of them connects again as soon as the other has pushed it out. Unchecked, the
// pair keeps gateway and broker busy for ever, and every message of both is lost in between.
import test, { type ExecutionContext } from 'ava'
import { eventually, openFiles } from '../support/e2e.ts'
import { openGateway } from '../support/gateway.ts'
import { createCa, issueDevice } from '../support/pki.ts'
import { rawDevice } from '../support/raw-mqtt.ts'

const IDS = Number(process.env.E2E_IDS ?? 50)
const SECONDS = Number(process.env.E2E_FIGHT_SECONDS ?? 5)
/** A device that was refused tries again after so long: twenty times as often as may be. */
const AGAIN_MS = 50

const stranger = issueDevice(createCa({ commonName: 'another owner' }), { commonName: 'other' })
const REGISTRY = `certificates:
  - { file: certs/device.pem, status: ACTIVE, policies: [ everything ] }
  - { file: certs/other.pem, status: ACTIVE, policies: [ everything ] }
policies:
  everything: { file: policies/everything.json }
`

/** What one that wants an id was told, over all its attempts. */
interface Told {
  connected: number
  pushedOut: number
  tooSoon: number
  taken: number
  other: number[]
}

async function fight(
  t: ExecutionContext,
  port: number,
  clientId: string,
  version: 4 | 5,
  until: number,
  certificate?: { readonly chainPem: string; readonly keyPem: string },
): Promise<Told> {
  const told: Told = { connected: 0, pushedOut: 0, tooSoon: 0, taken: 0, other: [] }
  while (performance.now() < until) {
    const options = certificate === undefined ? {} : { certificate }
    const device = await rawDevice(t, { port, version, clientId, ...options })
    const connack = (await device.hear('connack', 20_000).catch(() => null)) as {
      reasonCode?: number
      returnCode?: number
    } | null
    const code = connack?.reasonCode ?? connack?.returnCode
    if (code === 0) {
      told.connected++
      const ended = device.end(60_000)
      const timer = new Promise((resolve) => setTimeout(resolve, Math.max(0, until - performance.now()) + 500))
      await Promise.race([ended, timer])
      if (device.closed) {
        told.pushedOut++
        const farewell = device.heard.find(({ cmd }) => cmd === 'disconnect') as { reasonCode?: number } | undefined
        if (version === 5 && farewell?.reasonCode !== 0x8e) told.other.push(farewell?.reasonCode ?? -1)
      }
    } else if (code === (version === 5 ? 0x97 : 3)) told.tooSoon++
    else if (code === (version === 5 ? 0x85 : 2)) told.taken++
    else told.other.push(code ?? -1)
    device.socket.destroy()
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS))
  }
  return told
}

test.serial(
  `2 × ${IDS} devices fight over ${IDS} client ids: one takes over a second, the loser is told why, nothing is left`,
  async (t) => {
    t.timeout(SECONDS * 1_000 + 150_000)
    const gateway = await openGateway(t, {
      registry: REGISTRY,
      files: { 'registry/certs/other.pem': stranger.certPem },
    })
    const { mqtt: port } = gateway.ports
    const first = await rawDevice(t, { port, version: 5, clientId: 'first' })
    await first.hear('connack')
    first.say({ cmd: 'disconnect' })
    await first.end()
    const pid = gateway.proxy.child.pid!
    const files = openFiles(pid)

    const started = performance.now()
    const until = started + SECONDS * 1_000
    const pairs = await Promise.all(
      Array.from({ length: IDS }, (_, index) => {
        const [id, version] = [`fight-${index}`, index % 2 === 0 ? 4 : 5] as const
        return Promise.all([fight(t, port, id, version, until), fight(t, port, id, version, until)])
      }),
    )
    const seconds = (performance.now() - started) / 1_000
    const all = pairs.flat()
    const sum = (pick: (told: Told) => number) => all.reduce((total, told) => total + pick(told), 0)
    t.log(
      `${seconds.toFixed(1)} s: ${sum((told) => told.connected)} connected, ${sum((told) => told.pushedOut)} pushed out, ${sum((told) => told.tooSoon)} told that it was too soon`,
    )
    t.deepEqual(
      all.flatMap(({ other }) => other),
      [],
    )
    t.is(
      sum(({ taken }) => taken),
      0,
    )
    t.true(sum(({ tooSoon }) => tooSoon) > 0)
    for (const [one, other] of pairs) {
      // The first in, and then one a second; half a second of it may be in the making at either end.
      t.true(one.pushedOut + other.pushedOut <= seconds + 1)
      t.true(one.connected + other.connected >= 1)
    }

    // Somebody else is never let in, however often it tries.
    const owner = await rawDevice(t, { port, version: 5, clientId: 'owned' })
    await owner.hear('connack')
    const thieves = await Promise.all(
      Array.from({ length: 10 }, () => fight(t, port, 'owned', 5, performance.now() + 1_000, stranger)),
    )
    t.true(thieves.every(({ connected, taken, other }) => connected === 0 && taken > 0 && other.length === 0))
    t.false(owner.closed)
    owner.say({ cmd: 'disconnect' })
    await owner.end()

    await eventually(() => gateway.proxy.metric('brokergate_sessions').then((n) => n === 0), 'no session left')
    await eventually(() => openFiles(pid) <= files + 8, 'descriptors as before')
    t.notRegex(gateway.proxy.output(), /unhandled|uncaught/i)
  },
)
