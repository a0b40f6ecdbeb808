// A signature is worth what it refuses: every octet of a valid request is changed to every other octet that can stand
// there, and left out, and nothing is admitted but what means the same by RFC 3986 and RFC 9110.
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import type { HttpProof } from '../../src/auth/authenticator.ts'
import { presentsSigV4, readSigned } from '../../src/auth/sigv4-read.ts'
import { HOST, posted, TOKEN, upgrade, verifier } from '../support/sigv4.ts'
import { connectionOf } from './conformance.ts'

const signal = new AbortController().signal
const authenticator = verifier()

const kindOf = async (http: HttpProof): Promise<'authenticated' | 'denied'> =>
  (await authenticator.authenticate({ kind: 'sigv4', http }, connectionOf(), signal)).kind

/** Printable ASCII, and a few octets that are none. */
const OCTETS = [
  ...Array.from({ length: 95 }, (_, at) => String.fromCharCode(0x20 + at)),
  '\0',
  '\t',
  '\n',
  '\r',
  '\x7f',
  '\xe9',
]

function* mutants(text: string): Generator<string> {
  for (let at = 0; at < text.length; at++) {
    yield text.slice(0, at) + text.slice(at + 1)
    for (const octet of OCTETS) if (octet !== text[at]) yield text.slice(0, at) + octet + text.slice(at + 1)
  }
}

const sameTarget = (text: string) => text.replace(/%[0-9a-f]{2}/gi, (found) => found.toUpperCase())
/** Runs of white space mean one space, and none at the ends. */
const sameValue = (text: string) => text.replace(/[\t ]+/g, ' ').replace(/^ | $/g, '')
const sameHost = (text: string) => sameValue(text).toLowerCase()
/** White space around the commas between the parts is free, RFC 9110 §5.6.1. */
const sameAuthorization = (text: string) => sameValue(text).replace(/ ?, ?/g, ',')

async function refusesAll(
  t: ExecutionContext,
  http: HttpProof,
  text: string,
  meaning: (text: string) => string,
  put: (text: string) => HttpProof,
): Promise<void> {
  t.is(await kindOf(http), 'authenticated')
  let refused = 0
  for (const mutant of mutants(text)) {
    const same = meaning(mutant) === meaning(text)
    const kind = await kindOf(put(mutant))
    // What means the same may be refused for its form; what does not must be.
    if (kind === 'authenticated' && !same) return t.fail(JSON.stringify(mutant))
    if (kind === 'denied') refused++
  }
  t.true(refused > text.length * 90, `${refused} refused`)
}

for (const [what, http] of [
  ['a presigned upgrade', upgrade({ expiresSeconds: 300 })],
  ['a presigned upgrade with its session token', upgrade({ accessKeyId: 'ASIAEXAMPLE', sessionToken: TOKEN })],
  ['a publish signed in its headers', posted()],
] as const) {
  test(`${what}: no octet of the target can be changed or left out`, async (t) => {
    await refusesAll(t, http, http.target, sameTarget, (target) => ({ ...http, target }))
  })
}

test('no octet of the method can be changed or left out', async (t) => {
  const http = posted()
  await refusesAll(
    t,
    http,
    http.method,
    (text) => text,
    (method) => ({ ...http, method }),
  )
})

test('no octet of the body can be changed or left out', async (t) => {
  const http = posted()
  const put = (text: string): HttpProof => ({ ...http, body: Buffer.from(text, 'latin1') })
  await refusesAll(t, http, Buffer.from(http.body!).toString('latin1'), (text) => text, put)
})

const SIGNED = posted({
  accessKeyId: 'ASIAEXAMPLE',
  headers: ['x-amz-mqtt5-correlation-data', 'a  b', 'X-Amz-Security-Token', TOKEN],
  signedHeaders: 'host;x-amz-date;x-amz-mqtt5-correlation-data',
})

for (const [at, text] of SIGNED.rawHeaders.entries()) {
  const name = SIGNED.rawHeaders[at - (at % 2)]!
  const put = (changed: string): HttpProof => ({ ...SIGNED, rawHeaders: SIGNED.rawHeaders.with(at, changed) })

  if (at % 2 === 1) {
    test(`no octet of ${name} can be changed or left out`, async (t) => {
      const meaning = name === 'Host' ? sameHost : name === 'Authorization' ? sameAuthorization : sameValue
      await refusesAll(t, SIGNED, text, meaning, put)
    })
  } else {
    test(`no octet of the name ${name} can be changed or left out`, async (t) => {
      await refusesAll(t, SIGNED, text, (changed) => changed.toLowerCase(), put)
    })
  }
}

const segment = fc.string({ unit: fc.constantFrom(...'aZ09-._~%/+ $:&=?#é\0'), maxLength: 12 }).map(encodeURIComponent)
// Of empty and dot segments a signature says nothing.
const level = segment.filter((text) => !['', '.', '..'].includes(text))
const path = fc.array(level, { maxLength: 5 }).map((parts) => `/topics/${parts.join('/')}`)
const pair = fc.tuple(segment, fc.option(segment)).map(([name, value]) => (value === null ? name : `${name}=${value}`))
const value = fc.string({ unit: fc.constantFrom(...'aZ09 \t,;=%+/"\xe9'), maxLength: 20 })
const request = fc.record({
  method: fc.constantFrom('GET', 'POST', 'DELETE'),
  target: fc.tuple(path, fc.array(pair, { maxLength: 6 })).map(([where, query]) => `${where}?${query.join('&')}`),
  headers: fc.array(value, { maxLength: 3 }).map((values) => values.flatMap((text) => ['X-Amz-Meta', text])),
  body: fc.uint8Array({ maxLength: 64 }),
})

test('whatever is signed verifies, and not with one octet more in its body', async (t) => {
  await fc.assert(
    fc.asyncProperty(request, async ({ headers, ...rest }) => {
      const signedHeaders = headers.length === 0 ? 'host;x-amz-date' : 'host;x-amz-date;x-amz-meta'
      const http = posted({ ...rest, headers, signedHeaders })
      t.is(await kindOf(http), 'authenticated')
      t.is(await kindOf({ ...http, body: Buffer.concat([http.body!, Buffer.from('x')]) }), 'denied')
    }),
    { numRuns: 2_000 },
  )
})

const hostile = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 60 }),
  fc
    .array(
      fc.constantFrom(
        ...[
          'X-Amz-Signature',
          'X-Amz-Algorithm',
          'X-Amz-Credential',
          'X-Amz-Date',
          'X-Amz-SignedHeaders',
          'X-Amz-Expires',
        ],
        ...['AWS4-HMAC-SHA256', 'AWS4-', 'Credential=', 'SignedHeaders=', 'Signature=', 'host', 'AKIDEXAMPLE'],
        ...['20150830T123600Z', '99999999T999999Z', '/us-east-1/iotdata/aws4_request', 'f'.repeat(64)],
        ...[
          '=',
          '&',
          '?',
          '/',
          '%',
          '%2F',
          '%0',
          ';',
          ',',
          ' ',
          '+',
          '\0',
          '\u212a',
          '..',
          '//',
          '__proto__',
          'constructor',
        ],
      ),
      { maxLength: 30 },
    )
    .map((parts) => parts.join('')),
)

test('hostile requests are read without a throw, and admit nobody', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      hostile,
      hostile,
      fc.array(fc.tuple(fc.constantFrom('Host', 'Authorization', 'X-Amz-Date', 'Date', 'x'), hostile), {
        maxLength: 4,
      }),
      fc.boolean(),
      async (target, method, fields, isUpgrade) => {
        const http: HttpProof = {
          method,
          target: `/mqtt?${target}`,
          rawHeaders: [...fields.flat(), 'Host', HOST],
          body: isUpgrade ? null : new Uint8Array(),
        }
        t.is(readSigned(http).kind === 'absent', !presentsSigV4(http))
        t.is(await kindOf(http), 'denied')
        t.is(await kindOf({ ...http, target }), 'denied')
      },
    ),
    { numRuns: 5_000 },
  )
})
