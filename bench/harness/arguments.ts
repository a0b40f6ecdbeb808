import type { BrokerKind, Options } from './bench.ts'

export interface Arguments extends Options {
  readonly questions: readonly string[]
  /** Parts of the proxy, each alone and in its own way. */
  readonly parts: readonly string[]
  /** Where report and lines go. */
  readonly out: string
  /** Write bench/RESULTS.md and the charts beside it. */
  readonly results: boolean
  /** Answer from the last results what a fleet of this size needs, and measure nothing. */
  readonly capacity: string | null
}

export type Parsed =
  | { readonly kind: 'run'; readonly arguments: Arguments }
  | { readonly kind: 'wrong'; readonly reason: string }
  | { readonly kind: 'help' }

export const USAGE = `npm run bench -- [question or part…] [options]

  Without a question all are asked; --smoke also tries the parts.

  --against LIST    peers, by commas: haproxy, nginx, node, none, bare (what the runtime alone costs), or the folder of
                    another checkout of brokergate (a name with a slash); default: haproxy,nginx,node, those that are
                    installed; without node for --smoke
  --rounds N        rounds of each measurement; default 5
  --smoke           every question once, tiny: can it be answered at all?
  --broker KIND     sink (default), or mosquitto where a question can be asked so
  --out DIR         where report.html and lines.jsonl go; default bench/out
  --results         write bench/RESULTS.md and bench/charts from this run
  --capacity LIST   devices=N,connects=N,resumed=N,messages=N,deliveries=N: cores and memory for such a
                    fleet, from bench/RESULTS.md
`

const ROUNDS = 5
const DEFAULT_AGAINST = ['haproxy', 'nginx', 'node']
const PEERS = [...DEFAULT_AGAINST, 'bare']
/** brokergate on Node starts and answers as on Bun, only later: a smoke is short. */
const SMOKE_AGAINST = ['haproxy', 'nginx']

/** `known` are the questions that there are, in their order. */
export function parseArguments(
  args: readonly string[],
  known: readonly string[],
  knownParts: readonly string[],
): Parsed {
  const wanted: string[] = []
  let against: readonly string[] | null = null
  let rounds: number | null = null
  let broker: BrokerKind = 'sink'
  let out: string | null = null
  let capacity: string | null = null
  const flags = { smoke: false, results: false }
  const rest = [...args]
  while (rest.length > 0) {
    const arg = rest.shift()!
    const equals = arg.startsWith('--') ? arg.indexOf('=') : -1
    const name = equals < 0 ? arg : arg.slice(0, equals)
    if (name === '--help' || name === '-h') return { kind: 'help' }
    if (name === '--smoke' || name === '--results') {
      flags[name === '--smoke' ? 'smoke' : 'results'] = true
      continue
    }
    if (!name.startsWith('-')) {
      if (![...known, ...knownParts].includes(name)) {
        return wrong(`no such question: ${name}; there are ${known.join(', ')}; and the parts ${knownParts.join(', ')}`)
      }
      wanted.push(name)
      continue
    }
    if (!['--against', '--rounds', '--broker', '--out', '--capacity'].includes(name)) {
      return wrong(`no such option: ${name}`)
    }
    const value = equals < 0 ? rest.shift() : arg.slice(equals + 1)
    if (value === undefined || value === '') return wrong(`${name} needs a value`)
    if (name === '--against') {
      against = value === 'none' ? [] : value.split(',')
      const unknown = against.filter((peer) => !PEERS.includes(peer) && !peer.includes('/'))
      if (unknown.length > 0) return wrong(`no such peer: ${unknown.join(', ')}; there are ${PEERS.join(', ')}`)
    } else if (name === '--rounds') {
      rounds = Number(value)
      if (!Number.isInteger(rounds) || rounds < 1 || rounds > 99) return wrong('--rounds takes a whole number, 1 to 99')
    } else if (name === '--broker') {
      if (value !== 'sink' && value !== 'mosquitto') return wrong(`no such broker: ${value}; there are sink, mosquitto`)
      broker = value
    } else if (name === '--out') out = value
    else capacity = value
  }
  return {
    kind: 'run',
    arguments: {
      questions: wanted.length > 0 ? known.filter((name) => wanted.includes(name)) : known,
      parts: knownParts.filter((name) => wanted.includes(name) || (wanted.length === 0 && flags.smoke)),
      peers: ['brokergate', ...(against ?? (flags.smoke ? SMOKE_AGAINST : DEFAULT_AGAINST))],
      rounds: rounds ?? (flags.smoke ? 1 : ROUNDS),
      broker,
      out: out ?? 'bench/out',
      capacity,
      ...flags,
    },
  }
}

const wrong = (reason: string): Parsed => ({ kind: 'wrong', reason })
