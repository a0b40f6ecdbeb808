import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import test from 'ava'
import type { CloseReason, Trace } from '../../src/connection.ts'
import { createLog, LOG_FIELDS, sessionLevel, sessionLine } from '../../src/control/log.ts'

const REACHED_NOTHING: Trace = {
  stage: 'hello',
  mode: null,
  protocol: null,
  serverName: null,
  hello: null,
  tlsVersion: null,
  principal: null,
  clientId: null,
  mqttVersion: null,
  backend: null,
  upstream: null,
  helloMs: null,
  handshakeMs: null,
  connectedMs: null,
  requests: 0,
  bytesIn: 0,
  bytesOut: 0,
  packetsIn: 0,
  packetsOut: 0,
}
const RELAYED: Trace = {
  ...REACHED_NOTHING,
  stage: 'relay',
  mode: 'D',
  protocol: 'mqtt',
  serverName: 'localhost',
  hello: { ja4: 't13d' },
  tlsVersion: 'TLSv1.3',
  principal: 'ab'.repeat(32),
  clientId: 'sensor-1',
  mqttVersion: 5,
  backend: 'main',
  upstream: '127.0.0.1:1883',
  helloMs: 0.123456,
  handshakeMs: 2,
  connectedMs: 5,
  requests: 1,
  bytesIn: 10,
  packetsIn: 1,
}
const CONNECTION = { id: 'c1', port: 8883, remoteAddress: '192.0.2.1', remotePort: 4711, acceptedAt: 1_000 }

function lines(level: 'debug' | 'info' | 'warn' | 'error', format: 'json' | 'pretty') {
  const destination = new PassThrough()
  const log = createLog({ level, format, destination })
  return { log, text: () => String(destination.read() ?? '') }
}

test('a line is one JSON object with a level, a time, a process and a message', (t) => {
  const { log, text } = lines('info', 'json')
  log.debug({}, 'not this one')
  log.info({ port: 8883 }, 'listening')
  const line = JSON.parse(text())
  t.is(line.level, 'info')
  t.is(line.message, 'listening')
  t.is(line.port, 8883)
  t.is(line.pid, process.pid)
  t.is(line.worker, null)
  t.regex(line.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
})

test('the level may change while it is written', (t) => {
  const { log, text } = lines('info', 'json')
  log.setLevel('error')
  log.warn({}, 'not this one')
  log.setLevel('debug')
  log.debug({}, 'this one')
  t.is(JSON.parse(text()).message, 'this one')
})

test('a pretty line has its message and its fields on one line', (t) => {
  const { log, text } = lines('info', 'pretty')
  log.warn({ port: 8883 }, 'listening')
  const line = text()
  t.regex(line, /WARN.*listening.*8883.*\n$/)
  t.is(line.trimEnd().split('\n').length, 1)
})

test('what looks like a secret is not written, whoever logs it', (t) => {
  const { log, text } = lines('info', 'json')
  log.info({ password: 'hunter2', settings: { token: 'hunter2', deep: { secret: 'hunter2' } } }, 'oops')
  t.notRegex(text(), /hunter2/)
})

test('what hangs onto an error is not written, and what is no error has no more than its text', (t) => {
  const { log, text } = lines('info', 'json')
  const cause = Object.assign(new Error('inner'), { headers: { authorization: 'hunter2' } })
  const error = Object.assign(new Error('outer', { cause }), { payload: { claim: 'hunter2' }, code: 'EPIPE' })
  log.error({ error }, 'fault')
  const told = JSON.parse(text()).error
  t.deepEqual(Object.keys(told), ['type', 'message', 'stack', 'code'])
  t.like(told, { type: 'Error', message: 'outer: inner', code: 'EPIPE' })
  t.notRegex(text(), /hunter2/)
  const other = lines('info', 'json')
  other.log.error({ error: 'a text' }, 'fault')
  t.deepEqual(JSON.parse(other.text()).error, { type: 'string', message: 'a text' })
})

test('an error is written with its stack and cause', (t) => {
  const { log, text } = lines('info', 'json')
  log.error({ error: new Error('outer', { cause: new Error('inner') }) }, 'fault')
  const { error } = JSON.parse(text())
  t.regex(error.message, /outer: inner/)
  t.regex(error.stack, /log\.test\.ts/)
})

test('control characters of a device cannot break a line', (t) => {
  const { log, text } = lines('info', 'json')
  const { fields, message } = sessionLine(
    { ...RELAYED, clientId: 'a\n{"level":"error"}\u001b[2J' },
    CONNECTION,
    'downstream',
  )
  log.info(fields, message)
  t.is(text().trimEnd().split('\n').length, 1)
})

test('an attempt says where it ended and leaves out what it never reached', (t) => {
  const line = sessionLine(REACHED_NOTHING, CONNECTION, 'ERR_SNI_MISSING', { endedAt: 1_001.5 })
  t.deepEqual(line, {
    message: 'attempt ended in hello: sni_missing',
    fields: {
      event: 'attempt',
      id: 'c1',
      port: 8883,
      remoteAddress: '192.0.2.1',
      remotePort: 4711,
      stage: 'hello',
      reason: 'sni_missing',
      fault: 'downstream',
      durationMs: 1.5,
      bytesIn: 0,
      bytesOut: 0,
      packetsIn: 0,
      packetsOut: 0,
    },
  })
})

const OF_DENIALS = ['action', 'resource', 'reported', 'leftOut']

test('a session tells everything, in fields of the table and in its order', (t) => {
  const { fields, message } = sessionLine(RELAYED, CONNECTION, 'upstream', { detail: 'why', error: new Error('x') })
  const known = Object.keys(LOG_FIELDS)
  t.deepEqual(
    Object.keys(fields),
    known.filter((name) => !['level', 'time', 'pid', 'worker', 'message', ...OF_DENIALS].includes(name)),
  )
  t.is(message, 'session ended: upstream')
  t.is(fields.event, 'session')
  t.is(fields.fault, 'upstream')
  t.is(fields.helloMs, 0.123)
})

test('a long client id and a long detail are cut', (t) => {
  const { fields } = sessionLine({ ...RELAYED, clientId: 'x'.repeat(70_000) }, CONNECTION, 'downstream', {
    detail: 'y'.repeat(70_000),
  })
  t.is(String(fields.clientId).length, 128)
  t.is(String(fields.detail).length, 256)
})

const levelOf = test.macro({
  exec(t, reason: CloseReason, level: 'info' | 'warn', fault: string) {
    t.is(sessionLevel(reason), level)
    t.is(sessionLine(RELAYED, CONNECTION, reason).fields.fault, fault)
  },
  title: (_, reason: CloseReason, level: string, fault: string) => `${reason} is ${level}, fault ${fault}`,
})
test(levelOf, 'downstream', 'info', 'downstream')
test(levelOf, 'upstream', 'info', 'upstream')
test(levelOf, 'probe', 'info', 'downstream')
test(levelOf, 'ERR_CERTIFICATE_REVOKED', 'info', 'downstream')
test(levelOf, 'ERR_BACKEND_REFUSED', 'warn', 'upstream')
test(levelOf, 'ERR_INTERNAL', 'warn', 'proxy')
test(levelOf, 'ERR_DRAINING', 'info', 'proxy')

function run(script: 'exit' | 'outlive') {
  return spawn(process.execPath, [join(import.meta.dirname, '..', 'support', 'log-writer.ts'), script], {
    env: { PATH: process.env.PATH },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}

test('the last lines before an exit are not lost', async (t) => {
  const child = run('exit')
  let text = ''
  child.stdout.on('data', (chunk) => {
    text += chunk
  })
  const [code] = await once(child, 'close')
  t.is(code, 3)
  t.is(text.trimEnd().split('\n').length, 100)
})

test('a reader that goes away does not end the process', async (t) => {
  const child = run('outlive')
  await once(child.stdout, 'data')
  child.stdout.destroy()
  const [code] = await once(child, 'exit')
  t.is(code, 0)
})
