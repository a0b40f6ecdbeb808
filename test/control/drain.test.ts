import test from 'ava'
import { onSignals, runSteps, shutdownSteps } from '../../src/control/drain.ts'
import { NO_LOG } from '../../src/control/log.ts'

function recorded(fail: string | null = null) {
  const done: string[] = []
  const step = (name: string) => async () => {
    await new Promise((resolve) => setImmediate(resolve))
    if (name === fail) throw new Error(name)
    done.push(name)
  }
  const steps = shutdownSteps({
    notReady: () => void done.push('notReady'),
    settle: step('settle'),
    stopAccepting: step('stopAccepting'),
    endSessions: step('endSessions'),
    stopServers: step('stopServers'),
  })
  return { done, steps }
}

test('a shutdown goes from readiness to servers, each step after the one before', async (t) => {
  const { done, steps } = recorded()
  t.true(await runSteps(steps, NO_LOG))
  t.deepEqual(done, ['notReady', 'settle', 'stopAccepting', 'endSessions', 'stopServers'])
})

test('a step that fails does not keep the next ones from running', async (t) => {
  const { done, steps } = recorded('stopAccepting')
  t.false(await runSteps(steps, NO_LOG))
  t.deepEqual(done, ['notReady', 'settle', 'endSessions', 'stopServers'])
})

test.serial('the first signal drains, the second ends at once', (t) => {
  const heard: string[] = []
  const stop = onSignals({
    first: (signal) => heard.push(`first ${signal}`),
    second: (signal) => heard.push(`second ${signal}`),
  })
  process.emit('SIGTERM')
  process.emit('SIGTERM')
  stop()
  t.deepEqual(heard, ['first SIGTERM', 'second SIGTERM'])
  t.is(process.listenerCount('SIGTERM'), 0)
})

test.serial('one Ctrl-C that arrives twice, as under npm, is one', (t) => {
  const heard: string[] = []
  const stop = onSignals({
    first: (signal) => heard.push(`first ${signal}`),
    second: (signal) => heard.push(`second ${signal}`),
  })
  process.emit('SIGINT')
  process.emit('SIGINT')
  t.deepEqual(heard, ['first SIGINT'])
  process.emit('SIGTERM')
  stop()
  t.deepEqual(heard, ['first SIGINT', 'second SIGTERM'])
})
