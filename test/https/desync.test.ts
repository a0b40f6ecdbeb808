import test from 'ava'
import { HIDDEN, SHAPES } from './desync-shapes.ts'
import { front } from './front-harness.ts'

/** Lingering is for slow readers; here nobody is. */
const quick = (run: () => void, ms: number) => {
  const timeout = setTimeout(run, ms === 2_000 ? 5 : ms)
  return () => clearTimeout(timeout)
}

for (const { title, bytes, expected } of SHAPES) {
  test(`${title}: ${expected === 'refused' ? 'refused, and nothing hides behind it' : 'one request, what it hides is its body'}`, async (t) => {
    const { connect, published } = await front(t, { timer: quick })
    const device = await connect()
    device.send(bytes)
    if (expected === 'framed') {
      t.is((await device.answer()).status, 200)
      // Its body has been read to the end: the next request is the next one.
      device.send('POST /topics/next HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n')
      t.is((await device.answer()).status, 200)
      t.deepEqual(published, ['t', 'next'])
      return
    }
    // What waits for more gets its end here, as a peer that closes would give it.
    device.socket.end()
    await device.closed
    const answers = device.text.match(/HTTP\/1\.1 \d+/g) ?? []
    t.true(answers.length <= 1, device.text)
    for (const answer of answers) t.regex(answer, / 4\d\d$/)
    if (answers.length > 0) t.regex(device.text, /^connection: close\r$/im)
    t.deepEqual(published, [])
  })
}

test('the hidden request is one that would be served', async (t) => {
  const { connect, published } = await front(t)
  const device = await connect()
  device.send(HIDDEN)
  t.is((await device.answer()).status, 200)
  t.deepEqual(published, ['canary'])
})
