import { isIP } from 'node:net'
import { z } from 'zod'

/**
 * The form of `authorizers:` in a registry file. It reads nothing: `authorizer-reader.ts` does, of what the form names. What
 * is absent and has no default is `null`; durations are held in milliseconds.
 */

interface RawIssue {
  readonly code?: string | undefined
  readonly input?: unknown
  /** Of a key of a record: what is wrong with it. */
  readonly issues?: readonly { readonly message?: string | undefined }[] | undefined
}

/** What was expected, whether the value is missing or wrong. Never repeats the value: it may be a secret. */
const expected = (what: string) => ({
  error: (issue: RawIssue) => {
    if (issue.code === 'unrecognized_keys') return undefined
    if (issue.code === 'invalid_key') return issue.issues?.[0]?.message
    return issue.input === undefined ? `is missing, expected ${what}` : `expected ${what}`
  },
})

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }

function duration(leastMs: number, mostMs: number, what: string) {
  const toMs = (text: string): number => {
    const [, amount, unit] = /^(\d{1,9})(ms|s|m|h)$/.exec(text) ?? []
    return Number(amount) * (UNITS[unit ?? ''] ?? Number.NaN)
  }
  return z
    .string(expected(what))
    .refine((text) => toMs(text) >= leastMs && toMs(text) <= mostMs, `expected ${what}`)
    .transform(toMs)
}

const orNull = <T>(value: T | undefined): T | null => value ?? null

const text = (what: string) => z.string(expected(what)).min(1, `expected ${what}`)
const file = (what: string) => text(what)
const files = (what: string, most: number) =>
  z.array(file('a path'), expected(what)).min(1, `expected ${what}`).max(most, `expected at most ${most} files`)

/** A text, or where it stands. */
export const SECRET = z.union(
  [z.string(), z.strictObject({ file: text('a path') }), z.strictObject({ env: text('a name') })],
  expected('a text (quoted if it looks like a number), { file: … } or { env: … }'),
)

/** 127.0.0.0/8, ::1 and `localhost`: what never leaves this machine. */
function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '')
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
}

/** Where a call may go: `https:`, or `http:` on this machine. Credentials belong to `headers`, where they can be secret. */
export function callUrl(text: string): URL | null {
  if (!URL.canParse(text)) return null
  const url = new URL(text)
  if (url.username !== '' || url.password !== '' || url.hash !== '') return null
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname)) ? url : null
}

const URL_WORDS = 'an https:// URL without user and fragment (http:// only to this machine)'
const URL_TEXT = z.string(expected(URL_WORDS)).refine((value) => callUrl(value) !== null, `expected ${URL_WORDS}`)

/** Names that `node:http` and the body itself decide. */
const OWN_HEADERS = ['host', 'content-length', 'content-type', 'transfer-encoding', 'connection', 'accept-encoding']
const HEADERS = z.record(
  z
    .string()
    .regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$/, 'expected the name of an HTTP header')
    .refine((name) => !OWN_HEADERS.includes(name.toLowerCase()), 'expected a header that is not of the call itself'),
  SECRET,
  expected('headers such as { authorization: { env: AUTH } }'),
)

const NAME_WORDS = 'a name of 1–128 letters, digits and _ = , @ -'
const NAME = z.string().regex(/^[\w=,@-]{1,128}$/, `expected ${NAME_WORDS}`)
const POLICIES = z.array(text('the name of a policy'), expected('a list of names of policies')).max(10, 'at most 10')
export const KEY_NAME_WORDS = 'a name of 1–128 letters, digits, "_" and "-"'
const KEY_NAME = z.string(expected(KEY_NAME_WORDS)).regex(/^[a-zA-Z0-9_-]{1,128}$/, `expected ${KEY_NAME_WORDS}`)
const oneOf = <const T extends readonly [string, ...string[]]>(values: T) =>
  z.enum(values, expected(`one of ${values.join(', ')}`))

/** AWS IoT Core's function has 5 s; a device waits no longer. */
const MAX_TIMEOUT_MS = 5_000

const ANY = {
  status: oneOf(['ACTIVE', 'INACTIVE']).default('ACTIVE').describe('INACTIVE: nobody is let in by it.'),
  timeout: duration(1, MAX_TIMEOUT_MS, 'a duration of at most "5s"')
    .default(MAX_TIMEOUT_MS)
    .describe('For one whole decision, waiting in the queue included.'),
  concurrency: z
    .int(expected('a whole number from 1 to 1024'))
    .min(1, 'expected a whole number from 1')
    .max(1_024, 'expected at most 1024')
    .default(64)
    .describe('Most calls at once in one process; more wait, and are refused when too many do.'),
}

const TOKEN = {
  tokenKeyName: KEY_NAME.optional().transform(orNull).describe('Header, query or username parameter with the token.'),
}

/** Kinds that answer with documents and lifetimes of their own. */
const ANSWERING = {
  ...TOKEN,
  signing: z
    .strictObject({
      keys: files('a list of PEM files with public keys', 10).describe('RSA public keys of 2,048 to 8,192 bits, PEM.'),
    })
    .optional()
    .transform(orNull)
    .describe('Tokens must be signed by one of these keys, or nobody is asked.'),
  cacheForHttp: z
    .boolean(expected('true or false'))
    .default(false)
    .describe('Keep an answer for the requests of one persistent HTTPS connection.'),
  shareFor: duration(1_000, 86_400_000, 'a duration from "1s" to "24h"')
    .optional()
    .transform(orNull)
    .describe('Share an answer between connections that sent exactly the same, for so long. Absent: never.'),
  lifetimes: oneOf(['refuse', 'clamp'])
    .default('refuse')
    .describe('An answer with lifetimes outside of 300…86400 s: refuse it, or move them to the nearest.'),
}

/** JWS signatures with public keys (RFC 7518 §3.1, RFC 8037): HMAC is none, so that a public key is never a secret. */
const ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const

const CA = files('a list of PEM files', 16)

const AUTHORIZER = z.discriminatedUnion(
  'kind',
  [
    z.strictObject({
      kind: z.literal('webhook').describe('Asks an HTTPS endpoint.'),
      ...ANY,
      ...ANSWERING,
      url: URL_TEXT.describe('Where the question is posted.'),
      ca: z
        .union([file('a PEM file').transform((one) => [one]), CA], expected('a PEM file or a list of them'))
        .optional()
        .transform(orNull)
        .describe("CAs of the endpoint. Absent: the runtime's own list."),
      headers: HEADERS.default({}).describe("Sent with each question: the endpoint's own credentials."),
    }),
    z.strictObject({
      kind: z.literal('jwt').describe('Checks a JSON Web Token.'),
      ...ANY,
      ...TOKEN,
      jwksUrl: URL_TEXT.optional().transform(orNull).describe('Key set of the issuer; this or `keys`.'),
      keys: files('a list of PEM files with public keys', 10)
        .optional()
        .transform(orNull)
        .describe('Public keys, PEM; this or `jwksUrl`.'),
      ca: z
        .union([file('a PEM file').transform((one) => [one]), CA], expected('a PEM file or a list of them'))
        .optional()
        .transform(orNull)
        .describe("CAs of `jwksUrl`. Absent: the runtime's own list."),
      algorithms: z
        .array(oneOf(ALGORITHMS), expected('a list such as [ ES256 ]'))
        .min(1, 'expected at least one such as ES256')
        .describe('Signatures that count; all others are refused.'),
      issuer: z
        .union([text('a text'), z.null()], expected('the issuer, or null to leave it unchecked'))
        .describe('The claim `iss`; null leaves it unchecked.'),
      audience: z
        .union([text('a text'), z.null()], expected('the audience, or null to leave it unchecked'))
        .describe('A value of the claim `aud`; null leaves it unchecked.'),
      tokenFrom: oneOf(['parameter', 'password', 'username'])
        .default('parameter')
        .describe('Where the token stands: the parameter `tokenKeyName`, or MQTT’s password or user name.'),
      principal: text('the name of a claim').default('sub').describe('Claim that names the principal.'),
      policies: POLICIES.default([]).describe('Names of policies; without one nothing is allowed.'),
    }),
    z.strictObject({
      kind: z.literal('password').describe('Checks user name and password against a file of hashes.'),
      ...ANY,
      file: file('a file').describe('Lines user:hash, made by mosquitto_passwd -H sha512-pbkdf2 or brokergate passwd.'),
      policies: POLICIES.default([]).describe('Names of policies; without one nothing is allowed.'),
    }),
    z.strictObject({
      kind: z.literal('module').describe('Asks an ES module of your own.'),
      ...ANY,
      ...ANSWERING,
      path: file('a path').describe('The module; its default export makes the authorizer from `options`.'),
      options: z.record(z.string(), z.unknown()).default({}).describe('Handed to the module as they are.'),
    }),
  ],
  expected('an authorizer with kind webhook, jwt, password or module'),
)

/** `authorizers:` of a registry file; defaults are filled in, files not yet read. */
export const AUTHORIZERS = z.record(NAME, AUTHORIZER, expected('authorizers by name'))

export type AuthorizersForm = z.output<typeof AUTHORIZERS>
export type AuthorizerForm = AuthorizersForm[string]
