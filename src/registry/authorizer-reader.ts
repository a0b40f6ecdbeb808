import { createHash, createPublicKey, type KeyObject } from 'node:crypto'
import type { z } from 'zod'
import { type AuthorizerForm, type AuthorizersForm, KEY_NAME_WORDS, type SECRET } from './authorizer-schema.ts'
import type { AuthorizerEntry } from './entries.ts'
import { readPasswordFile } from './password-file.ts'
import { isPath, isVariableName, NOT_A_PATH } from './source.ts'

// What the form of authorizers turns into: the files and secrets that it names are read, through what the caller gives.

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

function entryOf(name: string, form: AuthorizerForm, read: Reader): AuthorizerEntry {
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
  const answering = (wanted: Extract<AuthorizerForm, { kind: 'webhook' | 'module' }>) => {
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

  digestOf(form: AuthorizerForm): string {
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
