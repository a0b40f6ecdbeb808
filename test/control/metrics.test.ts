import type { ExecutionContext } from 'ava'
import test from 'ava'
import { METRIC_PREFIX, METRICS, RUNGS } from '../../src/control/metric-table.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { createMetrics } from '../../src/control/prometheus.ts'
import type { FailureCode } from '../../src/errors.ts'
import { FAILURES, reasonOf } from '../../src/errors.ts'

function made(t: ExecutionContext) {
  const parts = createMetrics({ version: '1.2.3', runtime: 'test 1', ports: [8883], backends: ['main'] })
  t.teardown(parts.close)
  return parts
}

const series = async (parts: ReturnType<typeof made>, name: string): Promise<number | null> => {
  const line = (await parts.registry.metrics()).split('\n').find((each) => each.startsWith(`${METRIC_PREFIX}${name} `))
  return line === undefined ? null : Number(line.slice(line.lastIndexOf(' ') + 1))
}

test('every row of the table is a metric with its type, help and labels, and there are no others', async (t) => {
  const { registry } = made(t)
  const found = (await registry.getMetricsAsJSON()).map(({ name, help, type }) => ({ name, help, type: String(type) }))
  t.deepEqual(
    found.toSorted((left, right) => left.name.localeCompare(right.name)),
    Object.entries(METRICS)
      .map(([name, { help, type }]) => ({ name: METRIC_PREFIX + name, help, type: type as string }))
      .toSorted((left, right) => left.name.localeCompare(right.name)),
  )
})

test('every failure code says on which rungs it is counted', (t) => {
  // A new code needs a row in RUNGS (src/control/metric-table.ts): [] if it only ends live sessions.
  t.deepEqual(
    Object.keys(FAILURES).filter((code) => RUNGS[code as FailureCode] === undefined),
    [],
  )
})

test('results and reasons of the failure table start at 0, so that the first one is an increase', async (t) => {
  const parts = made(t)
  t.is(await series(parts, 'hellos_total{result="sni_missing"}'), 0)
  t.is(await series(parts, 'hellos_total{result="probe"}'), 0)
  t.is(await series(parts, 'handshakes_total{result="handshake_failed",version="none"}'), 0)
  t.is(await series(parts, 'identities_total{method="x509",result="certificate_revoked"}'), 0)
  t.is(await series(parts, 'connects_total{result="backend_refused",version="5"}'), 0)
  t.is(await series(parts, 'backend_dials_total{backend="main",result="backend_timeout"}'), 0)
  t.is(await series(parts, 'connections_accepted_total{port="8883"}'), 0)
  for (const code of Object.keys(FAILURES) as FailureCode[]) {
    t.is(await series(parts, `connections_closed_total{reason="${reasonOf(code)}"}`), 0, code)
  }
})

test('what the stages tell is counted', async (t) => {
  const parts = made(t)
  const { metrics, supervision } = parts
  metrics.accepted(8883)
  metrics.acceptPaused('descriptors')
  metrics.hello('ok')
  metrics.handshake('ok', 'TLSv1.3', 0.002)
  metrics.handshake('handshake_failed', 'none', 3)
  metrics.identity('x509', 'ok')
  metrics.connect('ok', '5', 0.02)
  metrics.dial('main', 'ok', 0.001)
  metrics.dial('main', 'backend_refused', 2)
  metrics.sessions(1)
  metrics.sessions(1)
  metrics.sessions(-1)
  metrics.closed('ERR_KEEP_ALIVE_TIMEOUT')
  metrics.closed('downstream')
  supervision.workers(4)
  supervision.workerExited('killed')
  t.is(await series(parts, 'connections_accepted_total{port="8883"}'), 1)
  t.is(await series(parts, 'accept_pauses_total{reason="descriptors"}'), 1)
  t.is(await series(parts, 'handshakes_total{result="ok",version="TLSv1.3"}'), 1)
  t.is(await series(parts, 'handshake_seconds_count'), 1, 'only the ones that succeeded have a duration')
  t.is(await series(parts, 'connect_seconds_sum'), 0.02)
  t.is(await series(parts, 'backend_dial_seconds_count{backend="main"}'), 1)
  t.is(await series(parts, 'backend_dials_total{backend="main",result="backend_refused"}'), 1)
  t.is(await series(parts, 'sessions'), 1)
  t.is(await series(parts, 'connections_closed_total{reason="keep_alive_timeout"}'), 1)
  t.is(await series(parts, 'connections_closed_total{reason="downstream"}'), 1)
  t.is(await series(parts, 'workers'), 4)
  t.is(await series(parts, 'worker_exits_total{reason="killed"}'), 1)
  t.is(await series(parts, 'build_info{version="1.2.3",runtime="test 1",transport="portable"}'), 1)
})

test('traffic is read at the scrape, however often that comes', async (t) => {
  const parts = made(t)
  const { traffic } = parts.metrics
  traffic.bytesIn += 100
  traffic.bytesOut += 7
  traffic.packetsIn[3]! += 5
  traffic.packetsOut[13]! += 1
  await parts.registry.metrics()
  traffic.bytesIn += 1
  t.is(await series(parts, 'bytes_total{direction="in"}'), 101)
  t.is(await series(parts, 'bytes_total{direction="out"}'), 7)
  t.is(await series(parts, 'packets_total{direction="in",type="publish"}'), 5)
  t.is(await series(parts, 'packets_total{direction="out",type="pingresp"}'), 1)
  t.is(await series(parts, 'packets_total{direction="in",type="connect"}'), 0)
})

test('the process tells its memory, time and descriptors', async (t) => {
  const parts = made(t)
  t.true((await series(parts, 'process_resident_memory_bytes'))! > 1_000_000)
  t.true((await series(parts, 'process_heap_used_bytes'))! > 100_000)
  t.true((await series(parts, 'process_cpu_seconds_total'))! > 0)
  t.true(Math.abs((await series(parts, 'process_start_time_seconds'))! - Date.now() / 1000) < 3_600)
  if (process.platform === 'linux') t.true((await series(parts, 'process_open_fds'))! > 2)
})

test('a loop that stands still shows as lag', async (t) => {
  const parts = made(t)
  const until = performance.now() + 400
  while (performance.now() < until);
  const deadline = AbortSignal.timeout(5_000)
  while ((await series(parts, 'event_loop_lag_seconds_count')) === 0 && !deadline.aborted) {
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.true((await series(parts, 'event_loop_lag_seconds_sum'))! > 0.2)
})

test('metrics for people who scrape nothing take everything', (t) => {
  NO_METRICS.accepted(1)
  NO_METRICS.connect('ok', '5', 1)
  NO_METRICS.closed('probe')
  NO_METRICS.traffic.bytesIn += 1
  t.is(NO_METRICS.traffic.packetsIn.length, 16)
})

test('names that a reload brings start at 0, and those that were there keep their counts', async (t) => {
  const { metrics, registry, settings, close } = createMetrics({ version: '1', ports: [8883], backends: ['main'] })
  t.teardown(close)
  metrics.accepted(8883)
  metrics.dial('main', 'ok', 0.01)
  settings.known({ ports: [8883, 443], backends: ['main', 'more'], registries: ['fleet'] })
  const text = await registry.metrics()
  for (const line of [
    'brokergate_connections_accepted_total{port="8883"} 1',
    'brokergate_connections_accepted_total{port="443"} 0',
    'brokergate_backend_dials_total{backend="main",result="ok"} 1',
    'brokergate_backend_dials_total{backend="more",result="ok"} 0',
    'brokergate_backend_dial_seconds_count{backend="main"} 1',
    'brokergate_registry_reloads_total{registry="fleet",result="ok"} 0',
  ]) {
    t.true(text.includes(`${line}\n`), line)
  }
})

test('reloads of the settings are counted, and the time of the last that is in force is told', async (t) => {
  const { registry, settings, close } = createMetrics({ version: '1' })
  t.teardown(close)
  settings.reloaded('refused')
  settings.reloaded('done')
  settings.generation(2)
  settings.living(3)
  const from = Math.floor(Date.now() / 1_000)
  settings.succeeded()
  const text = await registry.metrics()
  for (const line of [
    'brokergate_config_reloads_total{result="done"} 1',
    'brokergate_config_reloads_total{result="refused"} 1',
    'brokergate_config_reloads_total{result="unchanged"} 0',
    'brokergate_config_generation 2',
    'brokergate_config_generations_live 3',
  ]) {
    t.true(text.includes(`${line}\n`), line)
  }
  const at = Number(/^brokergate_config_last_reload_success_timestamp_seconds (\d+)$/m.exec(text)?.[1])
  t.true(at >= from && at <= Date.now() / 1_000)
})
