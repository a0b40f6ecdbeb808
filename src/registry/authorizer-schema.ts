import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import { isIP } from 'node:net'
import { z } from 'zod'
import type { AuthorizerEntry } from './entries.ts'
import { readPasswordFile } from './password-file.ts'
import { isPath, isVariableName, NOT_A_PATH } from './source.ts'

/**
 * The form of `authorizers:` in a registry file, and what it turns into.
 *
 * - `AUTHORIZERS` checks the form alone and reads nothing.
 * - `readAuthorizers` reads the files and secrets that it names, through what the caller gives it.
 * - What is absent and has no default is `null`; durations are held in milliseconds.
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
const SECRET = z.union(
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
const KEY_NAME_WORDS = 'a name of 1–128 letters, digits, "_" and "-"'
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
type Form = AuthorizersForm[string]

/** How files and secrets are had; a text that is thrown or returned never holds a secret. */
export interface AuthorizerSources {
  /** A path of the registry file, made absolute from there. */
  resolve(path: string): string
  /** Contents of a file by its absolute path; the caller bounds its size and watches it. @throws {Error} that says why not */
  readFile(path: string): string
  /** Undefined: not set. */
  env(name: string): string | undefined
}

export interface AuthorizerIssue {
  /** Below `authorizers`. */
  readonly path: readonly (string | number)[]
  readonly message: string
}

export interface AuthorizersRead {
  readonly entries: ReadonlyMap<string, AuthorizerEntry>
  readonly issues: readonly AuthorizerIssue[]
}

/** Reads what the entries name. An entry with an issue is not among the entries. */
export function readAuthorizers(form: AuthorizersForm, sources: AuthorizerSources): AuthorizersRead {
  const entries = new Map<string, AuthorizerEntry>()
  const issues: AuthorizerIssue[] = []
  for (const [name, wanted] of Object.entries(form)) {
    const reader = new Reader(name, sources, issues)
    const before = issues.length
    const entry = entryOf(name, wanted, reader)
    if (issues.length === before) entries.set(name, { ...entry, digest: reader.digestOf(wanted) })
  }
  return { entries, issues }
}

function entryOf(name: string, form: Form, read: Reader): AuthorizerEntry {
  const base = {
    name,
    status: form.status,
    digest: '',
    tokenKeyName: 'tokenKeyName' in form ? form.tokenKeyName : null,
    signingKeys: null,
    cacheForHttp: false,
    shareForMs: null,
    timeoutMs: form.timeout,
    concurrency: form.concurrency,
  }
  const answering = (wanted: Extract<Form, { kind: 'webhook' | 'module' }>) => {
    if (wanted.signing !== null && wanted.tokenKeyName === null) {
      read.issue(['tokenKeyName'], `is missing, expected ${KEY_NAME_WORDS}: signing is set`)
    }
    return {
      signingKeys: wanted.signing?.keys.map((path, at) => read.rsaKey(path, ['signing', 'keys', at])) ?? null,
      cacheForHttp: wanted.cacheForHttp,
      shareForMs: wanted.shareFor,
      lifetimes: wanted.lifetimes,
    }
  }
  switch (form.kind) {
    case 'webhook': {
      const ca = form.ca?.map((path, at) => read.certificates(path, ['ca', at])) ?? null
      const headers = Object.entries(form.headers).map(([key, value]) => [key, read.secret(value, ['headers', key])])
      return {
        ...base,
        ...answering(form),
        kind: 'webhook',
        url: new URL(form.url),
        ca,
        headers: Object.fromEntries(headers),
      }
    }
    case 'jwt': {
      if ((form.jwksUrl === null) === (form.keys === null)) read.issue([], 'needs jwksUrl or keys, and not both')
      if (form.ca !== null && form.jwksUrl === null) read.issue(['ca'], 'has no effect without jwksUrl')
      if (form.tokenFrom === 'parameter' && form.tokenKeyName === null) {
        read.issue(['tokenKeyName'], `is missing, expected ${KEY_NAME_WORDS}: tokenFrom is parameter`)
      }
      return {
        ...base,
        kind: 'jwt',
        jwksUrl: form.jwksUrl === null ? null : new URL(form.jwksUrl),
        keys: form.keys?.map((path, at) => read.jwtKey(path, form.algorithms, ['keys', at])) ?? null,
        ca: form.ca?.map((path, at) => read.certificates(path, ['ca', at])) ?? null,
        algorithms: form.algorithms,
        issuer: form.issuer,
        audience: form.audience,
        tokenFrom: form.tokenFrom,
        principal: form.principal,
        policies: form.policies,
      }
    }
    case 'password':
      return { ...base, kind: 'password', users: read.users(form.file), policies: form.policies }
    case 'module':
      return { ...base, ...answering(form), kind: 'module', path: read.module(form.path), options: form.options }
  }
}

/** Stands in where an issue was found; an entry with an issue is dropped. */
const NO_KEY = null as unknown as KeyObject

/** Reads for one entry; what it read goes into the entry's digest. */
class Reader {
  readonly #name: string
  readonly #sources: AuthorizerSources
  readonly #issues: AuthorizerIssue[]
  readonly #hash = createHash('sha256')

  constructor(name: string, sources: AuthorizerSources, issues: AuthorizerIssue[]) {
    this.#name = name
    this.#sources = sources
    this.#issues = issues
  }

  issue(path: readonly (string | number)[], message: string): void {
    this.#issues.push({ path: [this.#name, ...path], message })
  }

  digestOf(form: Form): string {
    return this.#hash.update(JSON.stringify(form)).digest('hex')
  }

  /** Null after an issue. */
  file(path: string, at: readonly (string | number)[]): string | null {
    if (!isPath(path)) {
      this.issue(at, NOT_A_PATH)
      return null
    }
    try {
      const contents = this.#sources.readFile(this.#sources.resolve(path))
      this.#learn(contents)
      return contents
    } catch (error) {
      this.issue(at, `${path} cannot be read: ${reasonFor(error)}`)
      return null
    }
  }

  secret(value: z.output<typeof SECRET>, at: readonly (string | number)[]): string {
    const found = this.#secret(value, at)
    // A header's value: RFC 9110 §5.5. What it is is not repeated.
    if (/[^\t\x20-\x7e\x80-\xff]/.test(found)) this.issue(at, 'holds a character that a header may not have')
    this.#learn(found)
    return found
  }

  #secret(value: z.output<typeof SECRET>, at: readonly (string | number)[]): string {
    if (typeof value === 'string') return value
    if ('file' in value) {
      const contents = this.file(value.file, [...at, 'file'])?.replace(/\r?\n$/, '')
      if (contents === '') this.issue([...at, 'file'], `the file is empty: ${value.file}`)
      return contents ?? ''
    }
    if (!isVariableName(value.env)) {
      this.issue([...at, 'env'], 'expected the name of an environment variable')
      return ''
    }
    const found = this.#sources.env(value.env)
    if (found === undefined || found === '') this.issue([...at, 'env'], `no such environment variable: ${value.env}`)
    return found ?? ''
  }

  certificates(path: string, at: readonly (string | number)[]): string {
    const pem = this.file(path, at) ?? ''
    if (pem !== '' && !pem.includes('-----BEGIN CERTIFICATE-----')) this.issue(at, `${path} holds no PEM certificate`)
    return pem
  }

  /** @returns a key of 2,048 to 8,192 bits; the price of a verification grows with the square of the size. */
  rsaKey(path: string, at: readonly (string | number)[]): KeyObject {
    const key = this.#publicKey(path, at)
    if (key === null) return NO_KEY
    const bits = key.asymmetricKeyType === 'rsa' ? (key.asymmetricKeyDetails?.modulusLength ?? 0) : 0
    if (bits < 2_048 || bits > 8_192) this.issue(at, `${path} is no RSA key of 2048 to 8192 bits`)
    return key
  }

  jwtKey(path: string, algorithms: readonly string[], at: readonly (string | number)[]): KeyObject {
    const key = this.#publicKey(path, at)
    if (key === null) return NO_KEY
    const kind = key.asymmetricKeyType
    if (!algorithms.some((name) => suits(key, name))) this.issue(at, `${path} is a key for none of the algorithms`)
    else if (kind === 'rsa') return this.rsaKey(path, at)
    return key
  }

  #publicKey(path: string, at: readonly (string | number)[]): KeyObject | null {
    const pem = this.file(path, at)
    if (pem === null) return null
    try {
      // A private key would do too, and should not lie about here.
      if (pem.includes('PRIVATE KEY')) throw new Error('it is a private key')
      return createPublicKey(pem)
    } catch (error) {
      this.issue(at, `${path} cannot be read as a public key: ${reasonFor(error)}`)
      return null
    }
  }

  users(path: string): ReturnType<typeof readPasswordFile>['users'] {
    const contents = this.file(path, ['file'])
    if (contents === null) return new Map()
    const { users, issues } = readPasswordFile(contents)
    // One wrong file of a million lines should not bring a million issues.
    for (const { line, message } of issues.slice(0, 20)) this.issue(['file'], `${path}:${line}: ${message}`)
    return users
  }

  /** Loaded when it is first asked, or by `check`; here it must be a file. */
  module(path: string): string {
    this.file(path, ['path'])
    return this.#sources.resolve(path)
  }

  #learn(contents: string): void {
    this.#hash.update(`${Buffer.byteLength(contents)}:`).update(contents)
  }
}

/** Curves by algorithm, as OpenSSL names them: RFC 7518 §3.4. */
const CURVES: Readonly<Record<string, string>> = { ES256: 'prime256v1', ES384: 'secp384r1', ES512: 'secp521r1' }

/** Whether a public key is of the kind that a JWS algorithm verifies with. */
export function suits(key: KeyObject, algorithm: string): boolean {
  if (/^[RP]S/.test(algorithm)) return key.asymmetricKeyType === 'rsa'
  if (algorithm.startsWith('Ed')) return key.asymmetricKeyType === 'ed25519'
  return key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === CURVES[algorithm]
}

const reasonFor = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message
}
