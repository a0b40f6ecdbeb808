// A fleet that comes back after an outage asks for more descriptors than a process may have. Were accepting not to
// rest then, accept would fail and be tried again without end: a full core for nothing, or a crash, and every session
// that was already in would pay for those that never were.
import test from 'ava'
import { cpuTicks, type Device, eventually, knock, openDoor, sleep, startSink } from '../support/e2e.ts'

const CLIENTS = 400

test.serial('with 256 descriptors, 400 devices at once neither crash nor spin the process', async (t) => {
  const sink = await startSink(t)
  const { proxy, port } = await openDoor(t, {
    backend: `kind: tcp, servers: [ { address: "127.0.0.1:${sink.port}" } ]`,
    prefix: ['bash', '-c', 'ulimit -n 256; exec "$@"', '--'],
  })
  const pid = proxy.child.pid!
  t.is(await proxy.metric('brokergate_process_max_fds'), 256)

  const inside: Device[] = []
  let outside = 0
  const attempts = Array.from({ length: CLIENTS }, (_, index) =>
    knock(port, `d-${index}`, { timeoutMs: 20_000 }).then(
      (device) => inside.push(device),
      () => outside++,
    ),
  )
  t.teardown(() => {
    for (const { socket } of inside) socket.destroy()
  })
  await Promise.all(attempts)
  t.true(inside.length > 50, `${inside.length} in, ${outside} refused`)
  t.true(outside > 0, `${inside.length} in, ${outside} refused`)
  t.true((await proxy.metric('brokergate_accept_pauses_total{reason="descriptors"}')) >= 1)
  t.is(await proxy.metric('brokergate_sessions'), inside.length)
  t.is(proxy.child.exitCode, null)

  const before = cpuTicks(pid)
  await sleep(1_000)
  const used = cpuTicks(pid) - before
  t.log(`${inside.length} in, ${outside} refused, ${used} % processor while paused`)
  t.true(used < 50, `${used} ticks of 10 ms in one second`)

  for (const { leave } of inside) leave()
  const late = await eventually(() => knock(port, 'late', { timeoutMs: 5_000 }).catch(() => null), 'a new session')
  t.teardown(() => late.socket.destroy())
  await eventually(() => proxy.metric('brokergate_sessions').then((n) => n === 1), 'the late session alone')
  t.notRegex(proxy.output(), /unhandled|uncaught/i)
})
