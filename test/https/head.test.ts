import test from 'ava'
import fc from 'fast-check'
import { checkHead, type RawHead } from '../../src/https/head.ts'

const RULES = { serverNames: ['a.example', 'b.example'], maxHeaders: 100, upgrade: false }
const raw = (changes: Partial<RawHead> = {}): RawHead => ({
  method: 'POST',
  url: '/topics/t?qos=1',
  httpVersion: '1.1',
  rawHeaders: ['Host', 'a.example', 'Content-Length', '2'],
  ...changes,
})
const judged = (changes: Partial<RawHead>, rules = RULES): string => {
  const result = checkHead(raw(changes), rules)
  return result.kind === 'head' ? 'head' : result.code
}
const host = (value: string) => judged({ rawHeaders: ['Host', value] })

test('a head is split at its first question mark, and nothing in it is decoded', (t) => {
  const result = checkHead(raw({ url: '/topics/a%2Fb?x=1?y=%20' }), RULES)
  if (result.kind !== 'head') return t.fail(result.detail)
  t.like(result.head, {
    target: '/topics/a%2Fb?x=1?y=%20',
    path: '/topics/a%2Fb',
    query: 'x=1?y=%20',
    host: 'a.example',
    contentLength: 2,
    chunked: false,
  })
})

test('Host is compared without its port, its case and its last dot', (t) => {
  for (const value of [
    'a.example',
    'A.Example',
    'a.example:443',
    'a.example:10443',
    'a.example.',
    'a.example.:443',
    'b.example',
  ]) {
    t.is(host(value), 'head', value)
  }
})

test('Host of another domain is misdirected, and what is no host name malformed', (t) => {
  for (const value of ['c.example', 'xa.example', 'a.example.c.example', '192.0.2.1'])
    t.is(host(value), 'ERR_HOST_MISMATCH', value)
  for (const value of [
    '',
    '.',
    'a.example..',
    'a.example:',
    'a.example:x',
    'a.example:123456',
    'x@a.example',
    'a.example/x',
    'a.example, a.example',
    'a example',
    '[::1]',
    'a.example\x00',
  ]) {
    t.is(host(value), 'ERR_HTTP_MALFORMED', JSON.stringify(value))
  }
})

test('HTTP/1.1 without Host is malformed, HTTP/1.0 is decided by SNI', (t) => {
  t.is(judged({ rawHeaders: [] }), 'ERR_HTTP_MALFORMED')
  const result = checkHead(raw({ rawHeaders: [], httpVersion: '1.0' }), RULES)
  t.is(result.kind === 'head' ? result.head.host : 'refused', null)
  t.is(judged({ rawHeaders: ['Host', 'c.example'], httpVersion: '1.0' }), 'ERR_HOST_MISMATCH')
})

test('an absolute target must name the host that Host names', (t) => {
  const result = checkHead(raw({ url: 'https://A.example:443/topics/t?qos=1' }), RULES)
  t.is(result.kind === 'head' ? result.head.target : 'refused', '/topics/t?qos=1')
  t.is(judged({ url: 'https://a.example' }), 'head')
  t.is(judged({ url: 'https://a.example?x' }), 'head')
  t.is(judged({ url: 'https://b.example/topics/t' }), 'ERR_HTTP_MALFORMED', 'both are ours, and they differ')
  t.is(judged({ url: 'https://c.example/topics/t' }), 'ERR_HOST_MISMATCH')
  for (const url of [
    'http://a.example/',
    'ftp://a.example/',
    'https:///x',
    'https://x@a.example/',
    'a.example:443',
    'topics/t',
    '',
    '*',
  ]) {
    t.is(judged({ url }), 'ERR_HTTP_MALFORMED', url)
  }
  t.is(judged({ url: '*', method: 'OPTIONS' }), 'head')
})

test('a target has no fragment, no backslash, no space and nothing above ASCII', (t) => {
  for (const byte of ['#', '\\', ' ', '\x7f', '\x01', 'ä', '\t'])
    t.is(judged({ url: `/topics/${byte}` }), 'ERR_HTTP_MALFORMED', byte)
})

test('more headers than the limit are too many', (t) => {
  const headers = (count: number) => ['Host', 'a.example', ...Array.from({ length: (count - 1) * 2 }, () => 'x')]
  t.is(judged({ rawHeaders: headers(100) }), 'head')
  t.is(judged({ rawHeaders: headers(101) }), 'ERR_HTTP_HEADERS_TOO_LARGE')
})

test('an upgrade is a GET of HTTP/1.1 without a body', (t) => {
  const upgrade = { ...RULES, upgrade: true }
  const get = { method: 'GET', url: '/mqtt', rawHeaders: ['Host', 'a.example'] }
  t.is(judged(get, upgrade), 'head')
  t.is(judged({ ...get, rawHeaders: ['Host', 'a.example', 'Content-Length', '0'] }, upgrade), 'head')
  t.is(judged({ ...get, rawHeaders: ['Host', 'a.example', 'Content-Length', '1'] }, upgrade), 'ERR_HTTP_MALFORMED')
  t.is(
    judged({ ...get, rawHeaders: ['Host', 'a.example', 'Transfer-Encoding', 'chunked'] }, upgrade),
    'ERR_HTTP_MALFORMED',
  )
  t.is(judged({ ...get, method: 'POST' }, upgrade), 'ERR_HTTP_MALFORMED')
  t.is(judged({ ...get, httpVersion: '1.0' }, upgrade), 'ERR_HTTP_MALFORMED')
})

test('names of Object.prototype are headers like others', (t) => {
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    t.is(judged({ rawHeaders: ['Host', 'a.example', name, '1'] }), 'head', name)
    t.is(judged({ rawHeaders: [name, 'a.example'] }), 'ERR_HTTP_MALFORMED', name)
  }
})

test('whatever comes, the answer is a head or a refusal, and a head names one of ours', (t) => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary' }),
      fc.array(
        fc.oneof(
          fc.constantFrom('Host', 'a.example', 'Content-Length', 'Transfer-Encoding', 'chunked', '0', '7'),
          fc.string({ unit: 'binary' }),
        ),
        { maxLength: 12 },
      ),
      fc.constantFrom('1.0', '1.1', '2.0'),
      fc.boolean(),
      (url, fields, httpVersion, upgrade) => {
        const rawHeaders = fields.length % 2 === 0 ? fields : fields.slice(1)
        const result = checkHead({ method: 'GET', url, httpVersion, rawHeaders }, { ...RULES, upgrade })
        if (result.kind === 'refused') return t.true(result.detail.length > 0)
        t.true(result.head.target.startsWith('/'))
        t.true(result.head.host === null ? httpVersion === '1.0' : /^[ab]\.example/i.test(result.head.host))
        t.false(result.head.chunked && result.head.contentLength !== null)
      },
    ),
    { numRuns: 3_000 },
  )
})
