import test from 'ava'
import { AWS_IOT_RULES, OPEN_RULES, type SessionRules } from '../../src/mqtt/limits.ts'
import { type FilterProblem, filterProblem, topicNameProblem, topicText } from '../../src/mqtt/topic-rules.ts'
import { hex } from './fakes.ts'

const nameOf = (name: string, rules: SessionRules) => topicNameProblem(name, Buffer.byteLength(name), rules)
const filterOf = (filter: string, rules: SessionRules) => filterProblem(filter, Buffer.byteLength(filter), rules)

const name = test.macro({
  exec(t, topic: string, open: boolean, aws: boolean) {
    t.is(nameOf(topic, OPEN_RULES), open ? null : 'ERR_TOPIC_INVALID')
    t.is(nameOf(topic, AWS_IOT_RULES), aws ? null : 'ERR_TOPIC_INVALID')
  },
  title: (_, topic: string, open: boolean, aws: boolean) =>
    `topic ${topic.slice(0, 40)} (${topic.length}): open ${open ? 'yes' : 'no'}, aws-iot ${aws ? 'yes' : 'no'}`,
})

test(name, 'a', true, true)
test(name, '/', true, true)
test(name, '', false, false)
test(name, 'a/+/b', false, false)
test(name, 'a#', false, false)
test(name, 'a/b/c/d/e/f/g/h', true, true)
test(name, 'a/b/c/d/e/f/g/h/i', true, false)
test(name, 'ä'.repeat(128), true, true)
test(name, `${'ä'.repeat(128)}b`, true, false)
test(name, '$aws/rules/r/a/b/c/d/e/f/g/h', true, true)
test(name, '$aws/rules/r/a/b/c/d/e/f/g/h/i', true, false)
test(name, `$aws/rules/${'r'.repeat(200)}/${'t'.repeat(256)}`, true, true)
test(name, `$aws/rules/r/${'t'.repeat(257)}`, true, false)
test(name, '$aws/rules/r/', true, false)
test(name, '$aws/rules/r', true, false)
test(name, '$aws/things/t/shadow/get', true, true)
test(name, '$aws/things/t/shadow/name/n/update', true, true)
test(name, '$aws/things/t/shadow/get/accepted', true, false)
test(name, '$aws/things/t/jobs/start-next', true, true)
test(name, '$aws/things/t/jobs/j-1/update', true, true)
test(name, '$aws/things/t/jobs/notify', true, false)
test(name, '$aws/things/t/defender/metrics/json', true, true)
test(name, '$aws/certificates/create/json', true, true)
test(name, '$aws/provisioning-templates/p/provision/cbor', true, true)
test(name, '$aws/events/presence/connected/dev', true, false)
test(name, '$SYS/broker', true, false)
test(name, '$share/g/a', true, false)

const filter = test.macro({
  exec(t, text: string, open: FilterProblem | null, aws: FilterProblem | null) {
    t.is(filterOf(text, OPEN_RULES), open)
    t.is(filterOf(text, AWS_IOT_RULES), aws)
  },
  title: (_, text: string, open: null | string, aws: null | string) =>
    `filter ${text.slice(0, 40)} (${text.length}): open ${open ?? 'yes'}, aws-iot ${aws ?? 'yes'}`,
})

test(filter, '#', null, null)
test(filter, '+', null, null)
test(filter, 'a/+/b/#', null, null)
test(filter, '+/+', null, null)
test(filter, 'a/#/b', 'form', 'form')
test(filter, 'a#', 'form', 'form')
test(filter, 'a+', 'form', 'form')
test(filter, '+a', 'form', 'form')
test(filter, '#/a', 'form', 'form')
test(filter, '$share/g/a/#', null, null)
test(filter, '$share/g', 'group', 'group')
test(filter, '$share//a', 'group', 'group')
test(filter, '$share/g/', 'group', 'group')
test(filter, '$share/g+/a', 'form', 'form')
test(filter, '$share/+/a', 'group', 'group')
test(filter, '$share/g#/a', 'form', 'form')
test(filter, '$share/g/#/a', 'form', 'form')
test(filter, '$share//\u0001', 'form', 'form')
test(filter, `$share/${'g'.repeat(129)}/a`, null, 'limit')
test(filter, '$share/g/a/b/c/d/e/f/g/h', null, null)
test(filter, 'a/b/c/d/e/f/g/h/i', null, 'limit')
test(filter, 't'.repeat(257), null, 'limit')
test(filter, `$share/g/${'t'.repeat(256)}`, null, null)
test(filter, '$aws/events/#', null, null)
test(filter, '$aws/things/+/shadow/#', null, null)
test(filter, '$aws/rules/r/a', null, 'limit')
test(filter, '$share/g/$aws/rules/r/a', null, 'limit')
test(filter, '$aws/#', null, 'limit')
test(filter, '$SYS/#', null, 'limit')

test('outside of aws-iot the levels of $share count like others', (t) => {
  const rules = { ...OPEN_RULES, topicSlashes: 3 }
  t.is(filterOf('$share/g/a/b', rules), null)
  t.is(filterOf('$share/g/a/b/c', rules), 'limit')
})

test('a topic name is text: well-formed UTF-8 without U+0000 [MQTT-1.5.4-1, MQTT-1.5.4-2]', (t) => {
  const textOf = (octets: string) => topicText(hex(octets), 0, hex(octets).length)
  t.is(textOf('612f62'), 'a/b')
  t.is(textOf('c3a4e282acf09f9a97'), 'ä€🚗')
  for (const bad of ['610062', 'c3', 'ff', 'eda080', 'c080', 'f4908080']) t.is(textOf(bad), null, bad)
})
