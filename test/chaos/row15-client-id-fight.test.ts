// Two devices with one client id throw each other out for ever, as fast as they can connect; and a stranger who knows an
// id must not be able to do so at all.
import { eventually } from '../support/e2e.ts'
import { ca } from '../support/gateway.ts'
import { issueDevice } from '../support/pki.ts'
import { startFleet } from './fleet.ts'
import { row } from './row.ts'

const IDS = 50
const FIGHT_MS = 12_000
const RETRY = { leastMs: 20, mostMs: 120 }

row(
  {
    number: 15,
    title: 'client-id fight',
    required: 'take-over limited to one a second and id, 0x8E to the loser, 0x85 to a stranger, no leak',
    seconds: 20,
  },
  async ({ t, start }) => {
    const owners = Array.from({ length: IDS }, (_, index) => issueDevice(ca, { commonName: `owner-${index}` }))
    const strangers = Array.from({ length: IDS }, (_, index) => issueDevice(ca, { commonName: `stranger-${index}` }))
    const files = Object.fromEntries(
      [...owners, ...strangers].map(({ certPem }, index) => [`registry/certs/fight-${index}.pem`, certPem]),
    )
    const { proxy, ports } = await start({
      files,
      registry: `certificates:
  - { file: certs/device.pem, status: ACTIVE, policies: [ everything ] }
${Object.keys(files)
  .map((file) => `  - { file: ${file.slice('registry/'.length)}, status: ACTIVE, policies: [ everything ] }`)
  .join('\n')}
policies:
  everything: { file: policies/everything.json }
`,
    })
    const common = { port: ports.mqtt, prefix: '', clientIds: owners.map((_, index) => `wanted-${index}`) }
    const first = await startFleet(t, { ...common, certificates: owners, retry: RETRY })
    const twin = await startFleet(t, { ...common, certificates: owners, retry: RETRY })
    const thieves = await startFleet(t, { ...common, certificates: strangers })
    t.is((await first.grow(IDS)).in, IDS)

    // A stranger is refused at every id, and nobody is the worse for it.
    const refused = await thieves.grow(IDS)
    t.deepEqual(refused.outcomes, { 'connack 133': IDS })
    t.deepEqual((await first.report()).endings, {})

    const began = performance.now()
    const fighting = twin.grow(IDS)
    await new Promise((resolve) => setTimeout(resolve, FIGHT_MS))
    const seconds = (performance.now() - began) / 1_000
    const [one, other] = [await first.report(), await twin.report()]
    await fighting
    const ends = [one, other].map(({ endings }) => endings)
    const takeovers = ends.reduce((sum, endings) => sum + (endings['disconnect 142'] ?? 0), 0)
    t.deepEqual([...new Set(ends.flatMap(Object.keys))], ['disconnect 142'], 'each loser is told 0x8E')
    t.true(takeovers > IDS, 'they did fight')
    // A rate of one a second may spend what it has saved before the first second is over.
    t.true(takeovers <= IDS * (seconds + 2), `${takeovers} in ${seconds} s`)
    const limited = (one.outcomes['connack 151'] ?? 0) + (other.outcomes['connack 151'] ?? 0)
    t.true(limited > 0, 'whoever was too soon was told so')
    t.deepEqual([...new Set([one, other].flatMap(({ outcomes }) => Object.keys(outcomes)))].sort(), [
      'connack 151',
      'in',
    ])

    await first.go('leave')
    await twin.go('leave')
    await eventually(() => proxy.metric('brokergate_sessions').then((n) => n === 1), 'the good client alone', 40_000)
    // Nothing is kept of the fight: an id that is free is anybody's.
    const heirs = await startFleet(t, { ...common, certificates: strangers, retry: RETRY })
    await heirs.grow(IDS)
    t.is((await heirs.report()).in, IDS)
    await heirs.go('leave')
    return {
      injected: `2 × ${IDS} connections of one owner each on ${IDS} ids for ${seconds.toFixed(0)} s, ${IDS} strangers`,
      seen: `${takeovers} take-overs (${(takeovers / IDS / seconds).toFixed(2)} a second and id), each loser told 0x8E; ${limited} attempts told 0x97; ${IDS} strangers told 0x85`,
    }
  },
)
