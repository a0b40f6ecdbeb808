import test from 'ava'
import { parseArguments } from '../../bench/harness/arguments.ts'

const KNOWN = ['handshake', 'publish']
const PARTS = ['gate']
const parse = (...args: string[]) => parseArguments(args, KNOWN, PARTS)

test('without arguments every question is asked, against all peers, and no part', (t) => {
  t.deepEqual(parse(), {
    kind: 'run',
    arguments: {
      questions: ['handshake', 'publish'],
      parts: [],
      peers: ['brokergate', 'haproxy', 'nginx', 'node'],
      rounds: 5,
      broker: 'sink',
      out: 'bench/out',
      capacity: null,
      smoke: false,
      results: false,
    },
  })
})

test('a smoke asks everything once and tries the parts', (t) => {
  const parsed = parse('--smoke')
  t.like(parsed, { kind: 'run', arguments: { questions: KNOWN, parts: PARTS, rounds: 1, smoke: true } })
})

test('questions keep their order, whatever the order of the arguments', (t) => {
  t.like(parse('publish', 'handshake'), { arguments: { questions: KNOWN, parts: [] } })
  t.like(parse('gate'), { arguments: { questions: [], parts: PARTS } })
})

test('a value comes behind the name or behind an equals sign', (t) => {
  t.like(parse('--rounds', '3', '--against=none'), { arguments: { rounds: 3, peers: ['brokergate'] } })
  t.like(parse('--against', 'bare'), { arguments: { peers: ['brokergate', 'bare'] } })
  t.like(parse('--against', 'nginx,../other'), { arguments: { peers: ['brokergate', 'nginx', '../other'] } })
  t.like(parse('--broker', 'mosquitto', '--out', '/tmp/x'), { arguments: { broker: 'mosquitto', out: '/tmp/x' } })
})

for (const [args, reason] of [
  [['nothing'], /no such question: nothing; there are handshake, publish/],
  [['--fast'], /no such option: --fast/],
  [['--rounds'], /--rounds needs a value/],
  [['--rounds', '0'], /whole number/],
  [['--rounds', '2.5'], /whole number/],
  [['--against', 'envoy'], /no such peer: envoy/],
  [['--broker', 'kafka'], /no such broker: kafka/],
] as const) {
  test(`«${args.join(' ')}» is refused with its reason`, (t) => {
    const parsed = parse(...args)
    t.is(parsed.kind, 'wrong')
    if (parsed.kind === 'wrong') t.regex(parsed.reason, reason)
  })
}

test('help is told', (t) => {
  t.deepEqual(parse('publish', '--help'), { kind: 'help' })
})
