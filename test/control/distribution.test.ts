import test from 'ava'
import { Histogram, Registry } from 'prom-client'
import { Distribution } from '../../src/control/distribution.ts'
import { joined, type Snapshot } from '../../src/control/snapshots.ts'

const BUCKETS = [0.001, 0.01, 0.1, 1, 10]
/** On a bound, between two, below all and above all. */
const VALUES = [0.001, 0.0005, 0.0100001, 0.01, 0.5, 1, 9.999, 10, 10.1, 60, 0]

function both() {
  const [ours, theirs] = [new Registry(), new Registry()]
  const described = { name: 'seconds', help: 'How long.' }
  return {
    ours,
    theirs,
    distribution: new Distribution<'backend'>({ ...described, buckets: BUCKETS, registers: [ours] }),
    histogram: new Histogram({ ...described, buckets: BUCKETS, labelNames: ['backend'], registers: [theirs] }),
  }
}

test('what is scraped is what the library would say, with labels and without', async (t) => {
  const { ours, theirs, distribution, histogram } = both()
  distribution.zero('idle "one"', { backend: 'idle "one"' })
  histogram.zero({ backend: 'idle "one"' })
  for (const value of VALUES) {
    for (const backend of ['a', 'b']) {
      distribution.observe(value, backend, { backend })
      histogram.observe({ backend }, value)
    }
    if (value > 1) continue
    distribution.observe(value)
    histogram.observe(value)
  }
  const said = await ours.metrics()
  t.is(said, await theirs.metrics())
  t.regex(said, /seconds_bucket\{le="\+Inf",backend="a"\} 11\n/)
  t.regex(said, /seconds_count\{backend="idle \\"one\\""\} 0\n/)
})

test('a series that is there stays as it is', async (t) => {
  const { ours, distribution } = both()
  distribution.observe(0.5, 'a', { backend: 'a' })
  distribution.zero('a', { backend: 'a' })
  t.regex(await ours.metrics(), /seconds_count\{backend="a"\} 1\n/)
})

test('what several processes observed is joined by bucket', async (t) => {
  const snapshots: Snapshot[] = []
  for (const value of [0.005, 5]) {
    const { ours, distribution } = both()
    distribution.observe(value, 'a', { backend: 'a' })
    snapshots.push(JSON.parse(JSON.stringify(await ours.getMetricsAsJSON())) as Snapshot)
  }
  const [{ values }] = joined(snapshots) as [Snapshot[number]]
  t.deepEqual(
    values.map(({ metricName, labels, value }) => [metricName, labels.le ?? null, value]),
    [
      ['seconds_bucket', 0.001, 0],
      ['seconds_bucket', 0.01, 1],
      ['seconds_bucket', 0.1, 1],
      ['seconds_bucket', 1, 1],
      ['seconds_bucket', 10, 2],
      ['seconds_bucket', '+Inf', 2],
      ['seconds_sum', null, 5.005],
      ['seconds_count', null, 2],
    ],
  )
})

test('set back, it begins anew', async (t) => {
  const { ours, distribution } = both()
  distribution.observe(0.5, 'a', { backend: 'a' })
  ours.resetMetrics()
  t.notRegex(await ours.metrics(), /backend/)
  distribution.observe(0.5, 'a', { backend: 'a' })
  t.regex(await ours.metrics(), /seconds_count\{backend="a"\} 1\n/)
})
