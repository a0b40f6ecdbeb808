import { type Answer, cellOf } from './summary.ts'

// What the proxy is to reach, as ratios within one run: a table of facts, and how it stands with each.

export interface Target {
  readonly what: string
  readonly question: string
  readonly case: string
  readonly figure: string
  /** Whose figure, of what it is a share, and which share at most. */
  readonly peer?: string
  readonly of: string
  readonly most: number
  /** Beyond what is asked. */
  readonly stretch?: boolean
}

const ONE = 'QoS 1, 128 B, one in flight'
const MANY = 'QoS 1, 128 B, 16 in flight'
const BURSTS = 'QoS 0, 128 B, bursts of 16'
const LARGE = 'QoS 1, 16 KiB, one in flight'
const FLEET = 'certificates of a CA'

const publish = (what: string, name: string): readonly Target[] => [
  { what, question: 'publish', case: name, figure: 'cpuUs', of: 'haproxy', most: 1 },
  { what, question: 'publish', case: name, figure: 'cpuUs', of: 'nginx', most: 1, stretch: true },
]

export const TARGETS: readonly Target[] = [
  { what: 'full handshake, CPU', question: 'handshake', case: FLEET, figure: 'cpuUs', of: 'haproxy', most: 0.45 },
  { what: 'full handshake, CPU', question: 'handshake', case: FLEET, figure: 'cpuUs', of: 'nginx', most: 0.6 },
  {
    what: 'resumed handshake, CPU',
    question: 'resumption',
    case: 'TLS 1.3 tickets, certificates of a CA',
    figure: 'cpuUs',
    of: 'haproxy',
    most: 0.5,
  },
  {
    what: 'refusal without server name, CPU',
    question: 'refusal',
    case: 'no server name',
    figure: 'cpuUs',
    of: 'haproxy',
    most: 1,
  },
  ...publish('QoS 1 publish, one in flight, CPU', ONE),
  ...publish('QoS 1 publish, 16 in flight, CPU', MANY),
  ...publish('QoS 0 publish in bursts, CPU', BURSTS),
  ...publish('QoS 1 publish of 16 KiB, CPU', LARGE),
  {
    what: 'publish with 20 statements, CPU',
    question: 'policy',
    case: ONE,
    figure: 'cpuUs',
    of: 'brokergate, open',
    most: 1.25,
  },
  {
    what: 'publish with 20 statements, 16 in flight, CPU',
    question: 'policy',
    case: MANY,
    figure: 'cpuUs',
    of: 'brokergate, open',
    most: 1.25,
  },
  {
    what: 'publish with 20 statements, CPU',
    question: 'policy',
    case: ONE,
    figure: 'cpuUs',
    of: 'haproxy',
    most: 1,
    stretch: true,
  },
  {
    what: 'memory per idle session of 5,000',
    question: 'memory',
    case: '5,000 sessions',
    figure: 'kilobytes',
    of: 'haproxy',
    most: 0.8,
  },
  {
    what: 'publish during a storm, p99',
    question: 'storm',
    case: 'publish during the storm',
    figure: 'p99Ms',
    of: 'haproxy',
    most: 1,
  },
  {
    what: 'publish during a storm, p99, just started',
    question: 'storm',
    case: 'publish during the first storm',
    figure: 'p99Ms',
    of: 'haproxy',
    most: 1,
  },
  {
    what: 'CPU per device with two workers',
    question: 'workers',
    case: 'full handshakes',
    figure: 'cpuUs',
    peer: 'brokergate, two workers',
    of: 'brokergate, one worker',
    most: 1.1,
  },
]

export interface Standing {
  readonly target: Target
  /** Null when one of the two was not measured. */
  readonly ratio: number | null
  readonly reached: boolean | null
}

export function standings(answers: readonly Answer[], targets: readonly Target[] = TARGETS): readonly Standing[] {
  return targets.map((target) => {
    const cell = cellOf(answers, { ...target, peer: target.peer ?? 'brokergate' })
    const ratio = cell?.ratios[target.of]?.median ?? null
    return { target, ratio, reached: ratio === null ? null : ratio <= target.most }
  })
}
