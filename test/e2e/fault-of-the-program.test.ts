// An error that nobody caught, here from a module of the operator, ends the process that it is in: loudly, with one line in
// the log and exit code 1. With several workers the others go on, and another one takes its place.
import test from 'ava'
import { eventually, knock, openDoor } from '../support/e2e.ts'

/** Events of the client ids `throws` and `rejects` bring what they say, after the session's own code is done. */
const SINK = `export default () => ({
  send({ topic }) {
    if (topic.endsWith('/throws')) setTimeout(() => { throw new Error('nobody catches this') })
    if (topic.endsWith('/rejects')) setTimeout(() => { Promise.reject(new Error('nobody catches this')) })
  },
  close() {},
})
`
const FAULT = /ended by a fault of this program: (uncaughtException|unhandledRejection)/

const open = (t: Parameters<typeof openDoor>[0], workers: number) =>
  openDoor(t, {
    backend: 'kind: embedded',
    workers,
    files: { 'sink.mjs': SINK },
    extra: 'events: [ { kind: module, path: sink.mjs } ]',
  })

for (const clientId of ['throws', 'rejects']) {
  test.serial(`one process: what ${clientId} ends it with code 1 and a line that says so`, async (t) => {
    const { proxy, port } = await open(t, 1)
    const exited = new Promise((resolve) => proxy.child.once('close', resolve))
    await knock(port, clientId).catch(() => {})
    t.is(await exited, 1, proxy.output())
    const line = proxy.lines().find(({ event }) => event === 'fault')
    t.like(line, { level: 'error', error: { message: 'nobody catches this' } })
    t.regex(String(line?.message), FAULT)
  })

  test.serial(`two workers: what ${clientId} ends one of them, and devices go on being served`, async (t) => {
    const { proxy, port } = await open(t, 2)
    await knock(port, clientId).catch(() => {})
    await eventually(() => proxy.lines().some(({ event }) => event === 'fault'), 'the line')
    const exits = 'brokergate_worker_exits_total{reason="exit"}'
    await eventually(async () => (await proxy.metric(exits)) === 1, 'the exit in the metrics')
    await eventually(async () => (await proxy.metric('brokergate_workers')) === 2, 'another worker')
    for (let count = 0; count < 4; count++) (await knock(port, `after-${count}`)).leave()
    t.is(proxy.child.exitCode, null)
  })
}
