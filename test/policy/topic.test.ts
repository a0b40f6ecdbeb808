import test from 'ava'
import fc from 'fast-check'
import { filterMatches, filterMatchesBelow, filterStart, isTopicFilter, isTopicName } from '../../src/policy/topic.ts'

const NAMES: Readonly<Record<string, boolean>> = {
  a: true,
  '/': true,
  '//a': true,
  'a b/ü': true,
  $SYS: true,
  '': false,
  'a/+': false,
  'a#': false,
  'a\0b': false,
}

for (const [name, valid] of Object.entries(NAMES)) {
  test(`${JSON.stringify(name)} is ${valid ? 'a' : 'no'} topic name [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2]`, (t) => {
    t.is(isTopicName(name), valid)
  })
}

const FILTERS: Readonly<Record<string, boolean>> = {
  '#': true,
  '+': true,
  '/': true,
  '+/+': true,
  '/+': true,
  'sport/tennis/#': true,
  'sport/+/player1': true,
  'sport/tennis#': false,
  'sport/tennis/#/ranking': false,
  'sport+': false,
  '+sport': false,
  'a/+b/c': false,
  '##': false,
  '#/': false,
  '': false,
  'a\0': false,
  $share: true,
  '$share/': false,
  '$share/g': false,
  '$share/g/': false,
  '$share//a': false,
  '$share/g/a': true,
  '$share/g//': true,
  '$share/g/#': true,
  '$share/g/a#': false,
  '$share/+/a': false,
  '$share/g#/a': false,
  '$shared/a': true,
}

for (const [filter, valid] of Object.entries(FILTERS)) {
  test(`${JSON.stringify(filter)} is ${valid ? 'a' : 'no'} topic filter [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2]`, (t) => {
    t.is(isTopicFilter(filter), valid)
  })
}

// biome-ignore format: a table is read down its columns
const MATCHES: readonly (readonly [filter: string, topic: string, mqtt: boolean, aws: boolean])[] = [
  ['a',            'a',            true,  true],
  ['a',            'A',            false, false],
  ['a',            'a/',           false, false],
  ['a/',           'a',            false, false],
  ['a/#',          'a',            true,  false],
  ['a/#',          'a/',           true,  true],
  ['a/#',          'a/b/c',        true,  true],
  ['a/#',          'ab',           false, false],
  ['#',            'a/b',          true,  true],
  ['#',            '/',            true,  true],
  ['+',            'a',            true,  true],
  ['+',            '/a',           false, false],
  ['+/+',          '/a',           true,  true],
  ['/+',           '/a',           true,  true],
  ['a/+',          'a/',           true,  true],
  ['a/+',          'a/b/c',        false, false],
  ['a/+/c',        'a//c',         true,  true],
  ['+/#',          'a',            true,  false],
  ['#',            '$SYS/x',       false, false],
  ['+/x',          '$SYS/x',       false, false],
  ['$SYS/#',       '$SYS/x',       true,  true],
  ['$SYS/+',       '$SYS/x',       true,  true],
  ['$share/g/a/+', 'a/b',          true,  true],
  ['$share/g/#',   '$SYS/x',       false, false],
  ['$share/g/a/#', 'a',            true,  false],
  ['$share/g/a',   '$share/g/a',   false, false],
]

for (const [filter, topic, mqtt, aws] of MATCHES) {
  test(`${filter} ${mqtt ? 'gets' : 'does not get'} ${topic}${mqtt === aws ? '' : ', not so at AWS IoT'}`, (t) => {
    t.is(filterMatches(filter, topic), mqtt)
    t.is(filterMatchesBelow(filter, topic), aws)
  })
}

/** Level by level, as the standard tells it. */
function slowly(filter: string, topic: string, parent: boolean): boolean {
  const levels = filter.slice(filterStart(filter)).split('/')
  const names = topic.split('/')
  if (topic.startsWith('$') && /^[+#]/.test(levels[0]!)) return false
  const below = (f: number, n: number): boolean => {
    if (levels[f] === '#') return n < names.length || parent
    if (f === levels.length || n === names.length) return f === levels.length && n === names.length
    return (levels[f] === '+' || levels[f] === names[n]) && below(f + 1, n + 1)
  }
  return below(0, 0)
}

const level = fc.constantFrom('', 'a', 'b', 'ab', '$SYS', '+', '#', 'ü')

test('matching agrees with the standard told level by level', (t) => {
  const text = fc.array(level, { minLength: 1, maxLength: 5 }).map((levels) => levels.join('/'))
  const shared = fc.tuple(fc.constantFrom('', '', '$share/g/'), text).map(([share, filter]) => share + filter)
  fc.assert(
    fc.property(shared, text, (filter, topic) => {
      if (!isTopicFilter(filter) || !isTopicName(topic)) return
      t.is(filterMatches(filter, topic), slowly(filter, topic, true), `${filter} ${topic}`)
      t.is(filterMatchesBelow(filter, topic), slowly(filter, topic, false), `${filter} ${topic}`)
    }),
    { numRuns: 20_000 },
  )
  t.pass()
})

test('validity agrees with a regular expression, and no text makes a function throw', (t) => {
  const text = fc.string({
    unit: fc.constantFrom('a', '/', '+', '#', '$', '\0', '$share/', '😀', '\ud800'),
    maxLength: 12,
  })
  fc.assert(
    fc.property(text, text, (filter, topic) => {
      const plain = /^(?:\$share\/[^/+#\0]+\/(?=[\s\S])|(?!\$share\/))(?:(?:\+|[^/+#\0]*)\/)*(?:\+|#|[^/+#\0]*)$/
      t.is(isTopicFilter(filter), filter !== '' && plain.test(filter), JSON.stringify(filter))
      t.is(isTopicName(topic), /^[^+#\0]+$/.test(topic))
      t.is(typeof filterMatches(filter, topic), 'boolean')
    }),
    { numRuns: 20_000 },
  )
})
