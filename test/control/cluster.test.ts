import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test, { type ExecutionContext } from 'ava'

type Line = Record<string, unknown> & { event: string }

const FIXTURE = join(import.meta.dirname, '..', 'support', 'cluster-worker.ts')
const DEADLINE_MS = 20_000

/** A primary with workers, in processes of their own. */
function cluster(t: ExecutionContext, env: Record<string, string>) {
  const child = spawn(process.execPath, [FIXTURE], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
    // A process group of its own, so that a signal can go to all of it as from a terminal.
    detached: true,
  })
  const pids = new Set<number>([child.pid!])
  t.teardown(() => {
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // Already gone, as it should be.
      }
    }
  })
  const lines: Line[] = []
  const waiters = new Set<() => void>()
  createInterface({ input: child.stdout }).on('line', (text) => {
    const line = JSON.parse(text) as Line
    if (typeof line.pid === 'number') pids.add(line.pid)
    lines.push(line)
    for (const wake of waiters) wake()
  })
  const exited = once(child, 'exit') as Promise<[number | null, string | null]>

  /** The first `count` lines that match, once they are there. */
  async function wait(matches: (line: Line) => boolean, count = 1, from = 0): Promise<Line[]> {
    const signal = AbortSignal.timeout(DEADLINE_MS)
    while (true) {
      const found = lines.slice(from).filter(matches)
      if (found.length >= count) return found
      if (signal.aborted) throw new Error(`not seen in time: ${matches}; seen: ${JSON.stringify(lines.slice(-8))}`)
      await new Promise<void>((resolve) => {
        const wake = () => {
          waiters.delete(wake)
          signal.removeEventListener('abort', wake)
          resolve()
        }
        waiters.add(wake)
        signal.addEventListener('abort', wake)
      })
    }
  }
  const event = (name: string) => (line: Line) => line.event === name

  return {
    child,
    exited,
    wait,
    event,
    tell: (line: string) => child.stdin.write(`${line}\n`),
    async ask(line: string): Promise<Line> {
      const from = lines.length
      child.stdin.write(`${line}\n`)
      return (await wait(event(line.split(' ')[0]!), 1, from))[0]!
    },
    seen: () => lines.length,
    async port(): Promise<number> {
      await wait(event('started'))
      return (await wait(event('listening')))[0]!.port as number
    },
  }
}

/** The pid of the worker that answered. */
async function visit(port: number): Promise<number> {
  const socket = connect(port, '127.0.0.1')
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
  })
  await once(socket, 'close')
  return Number(text)
}

function value(text: unknown, series: string): number {
  const line = String(text)
    .split('\n')
    .find((candidate) => candidate.startsWith(`${series} `))
  return Number(line?.slice(series.length + 1))
}

const ACCEPTED = 'brokergate_connections_accepted_total{port="8883"}'

test('workers share one listening socket, and one scrape joins their metrics', async (t) => {
  const group = cluster(t, { WORKERS: '2' })
  const port = await group.port()
  const listening = await group.wait(group.event('listening'), 2)
  t.deepEqual(
    listening.map((line) => line.port),
    [port, port],
  )
  for (let count = 0; count < 20; count++) await visit(port)
  const { text } = await group.ask('scrape')
  t.is(value(text, ACCEPTED), 20)
  t.is(value(text, 'brokergate_workers'), 2)
  t.regex(String(text), /brokergate_build_info\{version="test",runtime="[^"]+",transport="portable"\} 1\n/)
  t.regex(String(text), /brokergate_event_loop_lag_seconds_bucket\{le="0.001"\} \d+\n/)
  group.tell('drain 2000')
  t.deepEqual(await group.exited, [0, null])
})

test('a worker killed by a signal is replaced, and no total goes back', async (t) => {
  const group = cluster(t, { WORKERS: '2' })
  const port = await group.port()
  for (let count = 0; count < 10; count++) await visit(port)
  const before = (await group.ask('scrape')).text
  t.is(value(before, ACCEPTED), 10)

  const victim = (await group.wait(group.event('listening'), 2))[0]!.pid as number
  process.kill(victim, 'SIGKILL')
  await group.wait((line) => line.message === 'worker ready', 3)

  const after = (await group.ask('scrape')).text
  t.is(value(after, ACCEPTED), 10)
  t.true(value(after, 'brokergate_process_cpu_seconds_total') >= value(before, 'brokergate_process_cpu_seconds_total'))
  t.is(value(after, 'brokergate_worker_exits_total{reason="signal"}'), 1)
  t.is(value(after, 'brokergate_workers'), 2)
  t.not(await visit(port), victim)
  t.is(value((await group.ask('scrape')).text, ACCEPTED), 11)
})

test('what a worker counted since the last scrape is in its last words', async (t) => {
  const group = cluster(t, {
    WORKERS: '1',
    BEHAVIOR: 'crash-when-ready',
    BACKOFF: '{"firstMs":1,"maxMs":1,"stableMs":5000}',
  })
  await group.wait((line) => line.message === 'worker ended; it will be replaced', 3)
  const { text } = await group.ask('scrape')
  t.true(value(text, 'brokergate_worker_exits_total{reason="exit"}') >= 3)
  // Each counted one connection and was never asked while it lived.
  t.true(value(text, ACCEPTED) >= 2)
})

test('a worker that dies again and again is replaced with growing delays', async (t) => {
  const group = cluster(t, {
    WORKERS: '1',
    BEHAVIOR: 'crash-when-ready',
    BACKOFF: '{"firstMs":2,"maxMs":9,"stableMs":60000}',
  })
  const ends = await group.wait((line) => line.message === 'worker ended; it will be replaced', 5)
  t.deepEqual(
    ends.slice(0, 5).map((line) => line.delayMs),
    [2, 4, 8, 9, 9],
  )
})

test('a worker that ends before it is ready fails the start', async (t) => {
  const group = cluster(t, { WORKERS: '2', BEHAVIOR: 'fail-to-start' })
  const [line] = await group.wait(group.event('not-started'))
  t.regex(String(line!.message), /ended before it was ready \(exit code 9\)/)
})

test('a worker that cannot even be started fails the start', async (t) => {
  // No right to execute, as where the runtime lies in a folder of another user: no process, so no exit of one.
  const group = cluster(t, { WORKERS: '2', RUNTIME: '/etc/passwd' })
  const [line] = await group.wait(group.event('not-started'))
  t.regex(String(line!.message), /ended before it was ready/)
})

test('a worker that stands still does not hold a scrape', async (t) => {
  const group = cluster(t, { WORKERS: '2' })
  const port = await group.port()
  for (let count = 0; count < 6; count++) await visit(port)
  t.is(value((await group.ask('scrape')).text, ACCEPTED), 6)
  group.tell('broadcast block')
  await group.wait((line) => line.event === 'message' && line.data === 'blocking', 2)
  const askedAt = performance.now()
  const { text } = await group.ask('scrape')
  t.true(performance.now() - askedAt < 2_500)
  t.is(value(text, ACCEPTED), 6)
})

test('a message of the primary reaches every worker and is answered', async (t) => {
  const group = cluster(t, { WORKERS: '2' })
  await group.wait(group.event('started'))
  group.tell('broadcast hello')
  t.is((await group.wait((line) => line.event === 'message' && line.data === 'hello', 2)).length, 2)
})

test('a worker that does not drain is killed after the grace period, and the exit code says so', async (t) => {
  const group = cluster(t, { WORKERS: '2', BEHAVIOR: 'never-drain' })
  await group.wait(group.event('started'))
  group.tell('drain 50')
  const ends = await group.wait((line) => line.message === 'worker ended', 2)
  t.deepEqual(
    ends.map((line) => line.reason),
    ['killed', 'killed'],
  )
  t.deepEqual(await group.exited, [1, null])
})

test('workers are replaced one after the other, and one that does not drain is killed', async (t) => {
  const group = cluster(t, { WORKERS: '2' })
  const port = await group.port()
  const old = (await group.wait(group.event('listening'), 2)).map((line) => line.pid as number)
  const done = await group.ask('restart 5000')
  t.like(done, { kind: 'done', status: { state: 'done', replaced: 2, of: 2 } })
  const fresh = (await group.wait(group.event('listening'), 4)).slice(2).map((line) => line.pid as number)
  t.is(new Set([...old, ...fresh]).size, 4)
  for (const pid of old) t.false(alive(pid))
  t.true(fresh.includes(await visit(port)))
  const { workers, readyCount } = await group.ask('status')
  t.is(readyCount, 2)
  t.deepEqual(
    (workers as { state: string }[]).map(({ state }) => state),
    ['ready', 'ready'],
  )
  const { text } = await group.ask('scrape')
  t.is(value(text, 'brokergate_worker_exits_total{reason="drained"}'), 2)
  t.is(value(text, 'brokergate_workers'), 2)

  // Each in its order: ready, then the one before drains.
  const lines = await group.wait((line) => line.message === 'worker ended' || line.message === 'worker ready', 6)
  t.deepEqual(
    lines.slice(2).map((line) => line.message),
    ['worker ready', 'worker ended', 'worker ready', 'worker ended'],
  )
  group.tell('drain 2000')
  t.deepEqual(await group.exited, [0, null])
})

test('an old worker that does not drain is killed, and the restart goes on', async (t) => {
  const group = cluster(t, { WORKERS: '2', BEHAVIOR: 'never-drain' })
  await group.wait(group.event('started'))
  t.like(await group.ask('restart 50'), { kind: 'done' })
  const { text } = await group.ask('scrape')
  t.is(value(text, 'brokergate_worker_exits_total{reason="killed"}'), 2)
  t.is((await group.ask('status')).readyCount, 2)
})

test('an old worker that crashes while its replacement starts is not replaced twice', async (t) => {
  const group = cluster(t, { WORKERS: '2', LATER: 'slow-start' })
  const port = await group.port()
  const ready = await group.wait((line) => line.message === 'worker ready', 2)
  // The first place is taken over first.
  const first = ready.find(({ workerId }) => workerId === 1)!
  group.tell('restart 5000')
  const [late] = await group.wait(group.event('starting-slowly'))
  process.kill(first.workerPid as number, 'SIGKILL')
  await group.wait((line) => line.message === 'worker ended; another one has its place')
  const [done] = await group.wait(group.event('restart'))
  t.is(done!.kind, 'done')
  t.is((await group.ask('status')).readyCount, 2)
  t.is(((await group.ask('status')).workers as unknown[]).length, 2)
  t.true(alive(late!.pid as number))
  t.true((await visit(port)) > 0)
})

test('a replacement that fails ends the restart: the old ones stay, and the failed one is not tried again', async (t) => {
  const group = cluster(t, { WORKERS: '2', LATER: 'fail-to-start' })
  const port = await group.port()
  const old = (await group.wait(group.event('listening'), 2)).map((line) => line.pid as number)
  const done = await group.ask('restart 5000')
  t.like(done, { kind: 'aborted', status: { replaced: 0, of: 2 } })
  t.regex((done.status as { reason: string }).reason, /ended before it was ready/)
  for (const pid of old) t.true(alive(pid))
  t.true(old.includes(await visit(port)))
  const { workers, readyCount } = await group.ask('status')
  t.is(readyCount, 2)
  t.is((workers as unknown[]).length, 2)
})

test('a replacement that does not become ready in time is killed, and the old ones stay', async (t) => {
  const group = cluster(t, { WORKERS: '2', LATER: 'never-ready', READY_DEADLINE: '500' })
  await group.wait(group.event('started'))
  const done = await group.ask('restart 5000')
  t.regex((done.status as { reason: string }).reason, /was not ready in 500 ms/)
  await group.wait((line) => line.message === 'worker ended before it could take over')
  t.is((await group.ask('status')).readyCount, 2)
})

test('a drain during a restart ends both', async (t) => {
  const group = cluster(t, { WORKERS: '2', LATER: 'slow-start' })
  await group.wait(group.event('started'))
  group.tell('restart 5000')
  await group.wait(group.event('starting-slowly'))
  group.tell('drain 3000')
  t.deepEqual(await group.exited, [0, null])
  // Nobody was forked for the second place.
  t.is((await group.wait(group.event('starting-slowly'))).length, 1)
})

test('SIGINT to the process group reaches only the primary’s decision', async (t) => {
  const group = cluster(t, { WORKERS: '2' })
  const port = await group.port()
  process.kill(-group.child.pid!, 'SIGINT')
  await group.wait((line) => line.event === 'signal' && line.signal === 'SIGINT')
  process.kill(-group.child.pid!, 'SIGTERM')
  await group.wait((line) => line.event === 'signal' && line.order === 'second')
  t.true((await visit(port)) > 0)
  t.is((await group.ask('status')).readyCount, 2)
  group.tell('drain 2000')
  t.deepEqual(await group.exited, [0, null])
})

test('workers end when the primary is gone', async (t) => {
  const group = cluster(t, { WORKERS: '2' })
  await group.wait(group.event('started'))
  const pids = (await group.wait(group.event('listening'), 2)).map((line) => line.pid as number)
  // The pipe they inherited closes when the last of them is gone.
  const closed = once(group.child.stdout, 'close')
  group.child.kill('SIGKILL')
  await closed
  for (const pid of pids) t.false(alive(pid))
})

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    // A zombie waits for a parent that collects it: ended all the same.
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
