import { z } from 'zod'
import { duration, expected, orNull, section, toBytes, toMs } from './forms.ts'

// What a process takes on: how many handshakes, connections and sessions, and when it takes no more. All per worker.

const count = (example: number) =>
  z.int(expected(`a whole number such as ${example}`)).min(1, 'expected a whole number from 1')
const percent = () =>
  z.int(expected('a whole number of percent')).min(1, 'expected 1 or more').max(100, 'expected at most 100')

const budget = (inFlight: number) => ({
  inFlight: count(inFlight)
    .default(inFlight)
    .describe('Most under way. One that waits for its device for more than a second does not count.'),
  perSecond: count(200)
    .optional()
    .transform(orNull)
    .describe('Most begun in a second, evenly. Absent: as many as there is time for beside live sessions.'),
})

export const GOVERNOR = section({
  full: section(budget(512)).prefault({}).describe('Full handshakes: key exchange and certificates.'),
  resumed: section(budget(1_024)).prefault({}).describe('Handshakes that go on with an earlier session.'),
  queue: section({
    size: count(8_192).default(8_192).describe('Most hellos that wait; then the oldest of whoever has most is closed.'),
    timeout: duration()
      .default('6s')
      .transform(toMs)
      .describe('Longest wait; then the connection is closed before any key work.'),
  })
    .prefault({})
    .describe('Where hellos wait for a handshake: server names have turns, and the addresses of each.'),
  perAddress: section({
    connections: count(100)
      .optional()
      .transform(orNull)
      .describe('Most connections from one address. Absent: no limit, because many devices may share an address.'),
    inFlight: count(64)
      .optional()
      .transform(orNull)
      .describe('Most handshakes under way from one address; others wait. Absent: no limit.'),
    ipv6Prefix: z
      .int(expected('a whole number from 32 to 128'))
      .min(32, 'expected a whole number from 32')
      .max(128, 'expected a whole number up to 128')
      .default(64)
      .describe('An IPv6 address counts as its network of so many bits.'),
  })
    .prefault({})
    .describe('What one address may have.'),
  refusals: section({
    certificates: duration('0s')
      .default('5s')
      .transform(toMs)
      .describe(
        'A refused certificate is refused again without a question for so long, and up to twice as long. 0s: never.',
      ),
    addressAfter: count(16)
      .default(16)
      .describe('So many refused identities from an address where nobody is known make it wait.'),
    addressWithin: duration().default('1m').transform(toMs).describe('…when they come within this time.'),
    addressPause: duration('0s')
      .default('10s')
      .transform(toMs)
      .describe('How long it waits at least, and up to twice as long; it is closed before any key work. 0s: never.'),
  })
    .prefault({})
    .describe('What is remembered of refused devices; a change of a registry or revocation list forgets it all.'),
})
  .prefault({})
  .describe('Which handshakes begin, and when.')

const MEMORY = 'auto, or a size in MiB such as 512MiB'
/** Larger than the sizes of packets may be. */
const memory = () => z.string(expected(MEMORY)).regex(/^[1-9]\d{1,7}MiB$/, `expected ${MEMORY}`)

/** As written; `rules.ts` compares with them what is written beside. */
export const SHEDDING_DEFAULTS = {
  lag: { trickle: '250ms', refuse: '1s' },
  memory: { trickle: 85, refuse: 92 },
  descriptors: { trickle: 85, refuse: 95 },
} as const

const stages = ({ trickle, refuse }: { readonly trickle: number; readonly refuse: number }) => ({
  trickle: percent().default(trickle).describe('From so many percent only few full handshakes begin.'),
  refuse: percent()
    .default(refuse)
    .describe('From so many percent no new connections are taken, and /readyz says 503.'),
})

export const SHEDDING = section({
  lag: section({
    trickle: duration()
      .default(SHEDDING_DEFAULTS.lag.trickle)
      .transform(toMs)
      .describe('From so late an event loop, as a mean of some seconds, only few full handshakes begin.'),
    refuse: duration()
      .default(SHEDDING_DEFAULTS.lag.refuse)
      .transform(toMs)
      .describe(
        'From so late an event loop, as a mean of some seconds, no new connections are taken, and /readyz says 503.',
      ),
    stall: duration()
      .default('400ms')
      .transform(toMs)
      .describe('One stall of so long makes /readyz say 503 for two seconds, and refuses nobody.'),
  })
    .prefault({})
    .describe('How late timers come: what every session waits.'),
  memory: section({
    limit: z
      .union([z.literal('auto'), memory()], expected(MEMORY))
      .default('auto')
      .transform((limit) => (limit === 'auto' ? null : toBytes(limit)))
      .describe(
        'auto: the limit of the control group, else what the machine has free. A size: the resident memory of one worker.',
      ),
    ...stages(SHEDDING_DEFAULTS.memory),
  })
    .prefault({})
    .describe('Memory in use, as a part of the limit.'),
  descriptors: section(stages(SHEDDING_DEFAULTS.descriptors))
    .prefault({})
    .describe('Open descriptors, as a part of their limit.'),
  fullPerSecond: count(50).default(50).describe('How many full handshakes begin in a second in the first stage.'),
})
  .prefault({})
  .describe('When new connections have to stand back, so that live sessions go on.')

export const SESSIONS = section({
  most: count(10_000).optional().transform(orNull).describe('Most MQTT sessions of the domain. Absent: no limit.'),
  perPrincipal: count(4)
    .optional()
    .transform(orNull)
    .describe('Most MQTT sessions of one principal (certificate, access key, token). Absent: no limit.'),
})
  .prefault({})
  .describe('How many sessions one worker holds for the domain.')
