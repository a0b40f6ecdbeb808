// What stands before any key work meets whatever the Internet sends: right and wrong hellos, cut ones and broken ones,
// each of which must end in the answer that it deserves, and none of which may stay.
import { FAILURES, type FailureCode, reasonOf } from '../../src/errors.ts'
import { parseClientHello } from '../../src/listener/client-hello.ts'
import { campaign } from '../fuzz/campaign.ts'
import { HELLO } from '../fuzz/targets/listener.ts'
import { ANSWERS, NOT_TLS, SERVER_NAMES } from '../listener/hello-shapes.ts'
import { ca } from '../support/e2e.ts'
import { extension, fixtures, hello, messageOf, records, sni, u16, vector16 } from '../support/hello-build.ts'
import { issueServer } from '../support/pki.ts'
import { addressOf, crowd, type Reply, say } from './crowd.ts'
import { row } from './row.ts'

/** Names that the program below has. */
const SERVED = new Set(['localhost', 'things.example.com'])
const DOMAIN =
  '  - { serverNames: [ things.example.com ], certificates: [ { cert: things.pem, key: things.key } ], registry: main, backend: main }\n'
const things = issueServer(ca, { serverNames: ['things.example.com'] })
const HELLO_TIMEOUT_MS = 5_000

/** Code of the alert that ended it; null for another end. */
const alertOf = ({ bytes }: Reply): number | null => (bytes.length === 7 && bytes[0] === 21 ? bytes[6]! : null)
const isServerHello = ({ bytes }: Reply): boolean => bytes[0] === 22 && bytes[5] === 2

/** The code of the refusal, null where the library goes on: whether it does so to the end is its own business. */
function refusalOf(bytes: Uint8Array): FailureCode | null {
  const parse = parseClientHello(bytes)
  switch (parse.kind) {
    case 'incomplete':
      return 'ERR_HELLO_INCOMPLETE'
    case 'not-tls':
      return 'ERR_NOT_TLS'
    case 'malformed':
      return 'ERR_HELLO_MALFORMED'
    case 'oversized':
      return 'ERR_HELLO_OVERSIZED'
    case 'hello':
      if (parse.hello.serverName.kind === 'absent') return 'ERR_SNI_MISSING'
      if (parse.hello.serverName.kind === 'invalid') return 'ERR_SNI_INVALID'
      return SERVED.has(parse.hello.serverName.name) ? null : 'ERR_SNI_UNKNOWN'
  }
}

/** In words: what was answered, where it is not what was due; null when it is. */
function wrong(bytes: Uint8Array, reply: Reply): string | null {
  const code = refusalOf(bytes)
  // The library's own refusals are alerts too, of other numbers, behind or in place of a ServerHello.
  if (code === null)
    return reply.bytes[0] === 22 || reply.bytes[0] === 21 || reply.bytes.length === 0
      ? null
      : reply.bytes.toString('hex')
  const { alert } = FAILURES[code]
  if (alert === null ? reply.bytes.length === 0 : alertOf(reply) === alert) return null
  return `${reasonOf(code)} is due, and ${reply.bytes.toString('hex').slice(0, 60)} came`
}

/** Shapes that no table of the parser has: post-quantum, fragments, GREASE, a whole 64 KiB. */
const MORE: readonly Buffer[] = [
  ...fixtures().map(({ bytes }) => records(messageOf(bytes), 1)),
  hello({
    extensions: [
      sni('localhost'),
      extension(51, vector16(Buffer.concat([u16(0x11ec), vector16(Buffer.alloc(1_216, 7))]))),
    ],
  }),
  hello({ extensions: [extension(0x0a0a, Buffer.alloc(0)), sni('localhost'), extension(0xfafa, Buffer.alloc(3))] }),
  hello({ extensions: [sni('localhost'), extension(21, Buffer.alloc(60_000))] }),
]

row(
  {
    number: 1,
    title: 'ClientHello shapes, cut and flipped',
    required: 'good ones served, bad ones closed with the right alert within 5 s, no crash',
    seconds: 30,
  },
  async (chaos) => {
    const { t } = chaos
    const { proxy, ports } = await chaos.start({
      domain: DOMAIN,
      files: { 'things.pem': things.chainPem, 'things.key': things.keyPem },
    })
    const good = fixtures()
    const shapes = [
      ...good.map(({ bytes }) => bytes),
      ...MORE,
      ...SERVER_NAMES.map(([name]) => hello({ extensions: [sni(name)] })),
      ...Object.values(ANSWERS).map(([wire]) => wire),
      ...Object.values(NOT_TLS).map((text) => Buffer.from(text, 'hex')),
    ]
    const faults: string[] = []
    let served = 0
    const shoot = (all: readonly Buffer[], fin: true | 'once answered') =>
      crowd(all, 50, async (bytes, at) => {
        const reply = await say(ports.mqtt, bytes, { fin, localAddress: addressOf(at), deadlineMs: 30_000 })
        if (isServerHello(reply)) served++
        const fault = wrong(bytes, reply)
        if (fault !== null) faults.push(`${fault}: ${bytes.toString('hex').slice(0, 200)}`)
      })
    // Whoever hangs up at once need not be answered.
    await shoot(shapes, 'once answered')
    t.deepEqual(faults, [])
    // Every real client that names a server of ours was answered by TLS.
    t.true(served >= good.filter(({ serverName }) => serverName !== null).length, `${served} served`)

    const real = good.find(({ client }) => client === 'openssl-3.0')!.bytes
    const cut = Array.from({ length: real.length - 1 }, (_, length) => real.subarray(0, length + 1))
    await shoot(cut, true)
    const flips = Array.from({ length: 5_000 }, () => {
      const { bytes } = good[chaos.random(good.length)]!
      const flipped = Buffer.from(bytes)
      flipped[chaos.random(bytes.length)]! ^= 1 << chaos.random(8)
      return flipped
    })
    await shoot(flips, true)
    t.deepEqual(faults.slice(0, 5), [], `${faults.length} wrong answers`)

    // The same pieces of a peer that stays: each is closed when its time is over, and not before.
    const times: number[] = []
    await crowd(cut, cut.length, async (bytes, at) => {
      const reply = await say(ports.mqtt, bytes, { fin: false, localAddress: addressOf(at), deadlineMs: 60_000 })
      t.is(reply.bytes.length, 0)
      times.push(reply.ms)
    })
    const [first, last] = [Math.min(...times), Math.max(...times)]
    t.true(first > HELLO_TIMEOUT_MS - 1_000, `closed after ${first} ms`)
    chaos.note(
      `${cut.length} that stayed were closed after ${(first / 1_000).toFixed(1)} to ${(last / 1_000).toFixed(1)} s (deadline 5 s)`,
    )
    t.true((await proxy.metric('brokergate_hellos_total{result="hello_timeout"}')) >= cut.length)
    return {
      injected: `${shapes.length} shapes, ${cut.length} truncations with and without an end, ${flips.length} flipped bits`,
      seen: `each answered as it deserved, ${served} by TLS; wrong answers: 0`,
    }
  },
)

const CASES = Number(process.env.CHAOS_HELLO_CASES ?? 1_000_000)

row(
  {
    number: 2,
    title: 'fuzz of the hello parser',
    required: 'never throws, never reads past, agrees with the TLS library, steps bounded by a multiple of the length',
    seconds: 60,
  },
  async ({ t, seed }) => {
    const { cases, kinds, findings } = await campaign(HELLO, { seed, cases: CASES, ms: 400_000 })
    t.deepEqual(
      findings.map(({ message, input }) => `${message}: ${input.toString('hex')}`),
      [],
    )
    t.is(cases, CASES)
    for (const kind of HELLO.kinds) t.true((kinds.get(kind) ?? 0) > CASES / 200, `${kind}: ${kinds.get(kind)}`)
    return {
      injected: `${cases} mutations of ${HELLO.corpus().length} hellos, in process, whole and in pieces`,
      seen: `findings: 0; ${[...kinds].map(([kind, count]) => `${count} ${kind}`).join(', ')}`,
    }
  },
)
