// Two promises to someone who tries the program for the first time: that what is printed can be pasted, and that two
// devices on the embedded broker reach each other. The second breaks where every worker has a broker of its own.
import { execFile, spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { promisify } from 'node:util'
import test from 'ava'
import { eventually, mqttClient, openDoor } from '../support/e2e.ts'
import { folderFor, startProxy } from '../support/proxy.ts'

const exec = promisify(execFile)

test.serial('devices on different workers reach each other through the embedded broker', async (t) => {
  const { proxy, port } = await openDoor(t, { backend: 'kind: embedded', workers: 2 })
  // Which worker takes a connection is the system's choice, and told only in the line at its end.
  for (let round = 0; ; round++) {
    const names = Array.from({ length: 12 }, (_, index) => `r${round}-${index}`)
    const clients = await Promise.all(names.map((clientId) => mqttClient(t, port, { clientId })))
    const heard = new Set<string>()
    clients[0]!.on('message', (_topic, payload) => heard.add(payload.toString()))
    await clients[0]!.subscribeAsync('hall/#', { qos: 1 })
    await Promise.all(clients.map((client, index) => client.publishAsync('hall/x', names[index]!, { qos: 1 })))
    await proxy.until(() => heard.size === names.length, 'every message')
    await Promise.all(clients.map((client) => client.endAsync()))
    const workers = await proxy.until(() => {
      const found = new Map(
        proxy
          .lines()
          .filter((line) => line.event === 'session')
          .map((line) => [line.clientId as string, line.worker] as const),
      )
      return names.every((name) => found.has(name)) && names.map((name) => found.get(name))
    }, 'a line for every session')
    if (workers.some((worker) => worker !== workers[0])) {
      t.deepEqual([...heard].sort(), [...names].sort())
      return
    }
    if (round === 9) throw new Error('all connections went to one worker, ten times')
  }
})

const taken = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(true))
    probe.listen({ port, host: '::' }, () => probe.close(() => resolve(false)))
  })

test.serial('what the first run prints works when it is pasted into bash', async (t) => {
  for (const port of [8883, 8443, 10443, 9883]) {
    if (!(await taken(port))) continue
    t.log(`skipped: port ${port} is taken, and the first run has fixed ports`)
    return t.pass()
  }
  const cwd = folderFor(t)
  const proxy = await startProxy(t, '', 9883, { cwd })
  const lines = await proxy.until(() => {
    const found = proxy
      .output()
      .split('\n')
      .filter((line) => /^mosquitto_(sub|pub) /.test(line))
    return found.length === 4 && found
  }, 'four lines to paste')
  t.is(lines.filter((line) => line.includes('--tls-alpn x-amzn-mqtt-ca')).length, 2)

  for (const [sub, pub] of [lines.slice(0, 2), lines.slice(2, 4)] as [string, string][]) {
    const subscriber = spawn('bash', ['-c', `exec ${sub}`], { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
    const gone = new Promise((resolve) => subscriber.once('exit', resolve))
    let output = ''
    for (const stream of [subscriber.stdout, subscriber.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        output += chunk.toString()
      })
    }
    try {
      await eventually(async () => {
        await exec('bash', ['-c', pub], { cwd, timeout: 10_000 })
        return output.includes('hello/world it works')
      }, `${sub}\n${pub}`)
    } finally {
      subscriber.kill('SIGKILL')
      await gone
    }
    t.regex(output, /^hello\/world it works$/m)
  }
  t.deepEqual(await proxy.stop(), { code: 0, signal: null })
})
