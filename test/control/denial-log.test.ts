import test from 'ava'
import type { SecuredConnection, Trace } from '../../src/connection.ts'
import { denialLog } from '../../src/control/denial-log.ts'
import { type Fields, LOG_FIELDS } from '../../src/control/log.ts'

function logged() {
  const lines: Fields[] = []
  let now = 0
  const log = { debug: () => {}, info: (fields: Fields) => lines.push(fields), warn: () => {}, error: () => {} }
  const tell = denialLog(log, () => now)
  return {
    lines,
    pass: (ms: number) => {
      now += ms
    },
    deny: (resource = 'topic/a', reported = false) =>
      tell({
        connection: { id: 'c1' } as SecuredConnection,
        trace: { serverName: 'iot.example.com', principal: 'ab12', clientId: 'a' } as Trace,
        action: 'iot:Publish',
        resource,
        code: 'ERR_ACTION_DENIED',
        reported,
      }),
  }
}

test('what is denied is told with who, what and on what, in fields of the table', (t) => {
  const { lines, deny } = logged()
  deny('topic/a', true)
  t.deepEqual(lines, [
    {
      event: 'denied',
      id: 'c1',
      serverName: 'iot.example.com',
      principal: 'ab12',
      clientId: 'a',
      action: 'iot:Publish',
      resource: 'topic/a',
      reason: 'action_denied',
      reported: true,
    },
  ])
  for (const name of Object.keys(lines[0]!)) t.true(name in LOG_FIELDS, name)
})

test('ten lines a second, and how many more there were stands in the next', (t) => {
  const { lines, deny, pass } = logged()
  for (let n = 0; n < 1_000; n++) deny()
  t.is(lines.length, 10)
  pass(1_000)
  deny()
  t.is(lines.length, 11)
  t.is(lines[10]!.leftOut, 990)
  deny()
  t.false('leftOut' in lines[11]!)
})

test('a long topic is cut', (t) => {
  const { lines, deny } = logged()
  deny(`topic/${'x'.repeat(65_535)}`)
  t.is(String(lines[0]!.resource).length, 256)
})
