import test from 'ava'
import { addressBytes, addressMatcher, addressText } from '../../src/listener/addresses.ts'

const spelled = test.macro({
  exec(t, text: string, expected: string | null) {
    const bytes = addressBytes(text)
    t.is(bytes === null ? null : addressText(bytes), expected)
  },
  title: (_, text: string, expected: string | null) => `${JSON.stringify(text)} is ${expected ?? 'no address'}`,
})

test(spelled, '192.0.2.1', '192.0.2.1')
test(spelled, '255.255.255.255', '255.255.255.255')
test(spelled, '0.0.0.0', '0.0.0.0')
test(spelled, '::', '::')
test(spelled, '::1', '::1')
test(spelled, '1::', '1::')
test(spelled, '2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1')
test(spelled, '2001:0db8:0000:0000:0000:0000:0000:0001', '2001:db8::1')
test(spelled, '2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1')
test(spelled, '1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0')
test(spelled, '::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8')
test(spelled, 'fe80::1:0:0', 'fe80::1:0:0')
test(spelled, '::ffff:192.0.2.1', '192.0.2.1')
test(spelled, '::ffff:c000:201', '192.0.2.1')
test(spelled, '64:ff9b::192.0.2.1', '64:ff9b::c000:201')
test(spelled, '1:2:3:4:5:6:192.0.2.1', '1:2:3:4:5:6:c000:201')
test(spelled, '::192.0.2.1', '::c000:201')
for (const text of [
  ...['', '1', '1.2.3', '1.2.3.4.5', '256.1.1.1', '01.2.3.4', '1.2.3.4 ', '0x1.2.3.4', '1.2.3.-4', '1..2.3'],
  ...[':', ':::', '1:2', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', '1::2::3', '12345::', 'g::', '::1%eth0', '[::1]'],
  ...['1:2:3:4:5:6:7:8::', '::1:2:3:4:5:6:7:8', ':1:2:3:4:5:6:7', '1:2:3:4:5:6:7:', '::1.2.3', '::ffff:1.2.3.400'],
  ...['1.2.3.4::', '::1.2.3.4:5', '1:2:3:4:5:6:7:1.2.3.4', '1:1.2.3.4', '::ffff1.2.3.4', '1'.repeat(10_000)],
]) {
  test(`${JSON.stringify(text.slice(0, 50))} is no address`, (t) => t.is(addressBytes(text), null))
}

const matches = test.macro({
  exec(t, entries: string[], inside: string[], outside: string[]) {
    const has = addressMatcher(entries)
    t.deepEqual(
      inside.filter((address) => !has(address)),
      [],
    )
    t.deepEqual(outside.filter(has), [])
  },
  title: (_, entries: string[]) => `[${entries}] holds its own and no other`,
})

test(matches, [], [], ['127.0.0.1', '::1', ''])
test(matches, ['127.0.0.1'], ['127.0.0.1', '::ffff:127.0.0.1', '::ffff:7f00:1'], ['127.0.0.2', '::1', '::127.0.0.1'])
test(matches, ['::1'], ['::1', '0:0::1'], ['::2', '127.0.0.1', '0.0.0.1'])
test(matches, ['10.0.0.0/8'], ['10.0.0.0', '10.255.255.255', '::ffff:10.1.2.3'], ['9.255.255.255', '11.0.0.0', 'a00::'])
test(matches, ['10.1.2.3/8'], ['10.9.9.9'], ['11.0.0.0'])
test(matches, ['0.0.0.0/0'], ['1.2.3.4', '255.255.255.255', '::ffff:1.2.3.4'], ['::1', '2001:db8::1'])
test(matches, ['::/0'], ['::1', '2001:db8::1'], ['1.2.3.4', '::ffff:1.2.3.4'])
test(matches, ['::ffff:10.0.0.0/104'], ['10.1.2.3', '::ffff:10.1.2.3'], ['11.0.0.0', '::1'])
test(matches, ['fe80::/10'], ['fe80::1', 'fe80::1%eth0', 'febf::'], ['fec0::', 'fe80', 'fe80::1::'])
test(
  matches,
  ['2001:db8::/33', '192.0.2.128/25'],
  ['2001:db8:7fff::', '192.0.2.200'],
  ['2001:db8:8000::', '192.0.2.127'],
)
test(matches, ['192.0.2.1/32', '2001:db8::1/128'], ['192.0.2.1', '2001:db8::1'], ['192.0.2.0', '2001:db8::'])

for (const entry of [
  '',
  'example.com',
  '10.0.0.0/33',
  '::/129',
  '10.0.0.0/',
  '10.0.0.0/-1',
  '10.0.0.0/08',
  '/8',
  '10.0.0.0/8/8',
  ' 10.0.0.1',
  '10.0.0.0/8 ',
  '10.0.0/8',
  'fe80::1%eth0',
  '10.0.0.0/1e1',
]) {
  test(`the entry ${JSON.stringify(entry)} is refused by name`, (t) => {
    const error = t.throws(() => addressMatcher(['127.0.0.1', entry]), { instanceOf: RangeError })
    t.true(error.message.includes(JSON.stringify(entry)))
  })
}
