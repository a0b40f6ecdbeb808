import type { SecuredConnection } from '../connection.ts'
import type { FailureCode } from '../errors.ts'
import { joinGrants } from '../policy/grants.ts'
import { type Grants, NO_VARIABLES } from '../policy/permit.ts'
import { type AuthorizerEntry, NO_THINGS } from '../registry/entries.ts'
import type { Registry } from '../registry/registry.ts'
import type { Yes } from './answer.ts'
import { type Authenticated, type Authenticator, type AuthOutcome, type Credentials, GONE } from './authenticator.ts'
import type { Authorizers } from './authorizers.ts'
import { type Dated, keyOver } from './outcome-cache.ts'
import { readParameters } from './parameters.ts'
import { connectionIdOf, fits, type Question, requestOf } from './question.ts'
import { verifyToken } from './token-signature.ts'

export interface CustomOptions {
  /** Looked at anew each time: authorizers come, change and go. Null where the domain has no registry. */
  readonly registry: () => Registry | null
  readonly authorizers: Authorizers
  /** Names that clients of the domain may use. */
  readonly allowed: readonly string[]
  readonly defaultAuthorizer: string | null
  /** Whether a client's own choice counts. */
  readonly allowOverride: boolean
  /** Those that count by now for a connection that these let in; null: its domain or its way in is gone. Absent: these. */
  readonly inForce?: (connection: SecuredConnection) => CustomOptions | null
}

type Of<K extends Credentials['kind']> = Extract<Credentials, { readonly kind: K }>
type Denial = Extract<AuthOutcome, { readonly kind: 'denied' }>

/**
 * Asks an authorizer who the device is and what it may do. AWS IoT Core developer guide, "Custom authentication".
 *
 * - Which authorizer: the one that the device names, where it may; else the domain's default.
 * - Denied before anybody is asked: parameters that contradict each other, no such authorizer, a token that is not signed.
 * - No policy, no permission: an answer without documents allows nothing.
 * - Errors: ERR_AUTHORIZER_UNAVAILABLE when no usable answer could be had.
 */
export function custom(options: CustomOptions): Authenticator<Of<'custom'>> {
  return {
    method: 'custom',
    authenticate: (credentials, connection, signal) => new Attempt(options, credentials, connection, null).ask(signal),
  }
}

/**
 * The certificate first, and then the authorizer, which is told of it and must name it as its principal. What the
 * authorizer's documents grant is joined with what the certificate's own policies grant.
 */
export function customX509(options: CustomOptions, x509: Authenticator<Of<'x509'>>): Authenticator<Of<'custom-x509'>> {
  return {
    method: 'custom-x509',
    async authenticate(credentials, connection, signal) {
      const { peer } = credentials
      const judged = await x509.authenticate({ kind: 'x509', peer }, connection, signal)
      if (judged.kind === 'denied') return judged
      if (peer === null) return denied('ERR_CERTIFICATE_ABSENT', 'no client certificate')
      const certificate = { outcome: judged, pem: peer.leaf.toString() }
      return new Attempt(options, credentials, connection, certificate).ask(signal)
    },
  }
}

interface Certificate {
  readonly outcome: Authenticated
  readonly pem: string
}

/** One device at one authorizer, from its first question to the end of its connection. */
class Attempt {
  #options: CustomOptions
  readonly #credentials: Of<'custom'> | Of<'custom-x509'>
  readonly #connection: SecuredConnection
  /** As it was judged last. */
  #certificate: Certificate | null
  /** Fixed at the first yes and not moved by later ones; on the monotonic clock. */
  #endsAt: number | null = null

  constructor(
    options: CustomOptions,
    credentials: Of<'custom'> | Of<'custom-x509'>,
    connection: SecuredConnection,
    certificate: Certificate | null,
  ) {
    this.#options = options
    this.#credentials = credentials
    this.#connection = connection
    this.#certificate = certificate
  }

  async ask(signal: AbortSignal): Promise<AuthOutcome> {
    const { http, mqtt } = this.#credentials
    const parameters = readParameters(http, mqtt)
    const named = parameters.authorizer()
    if (named.kind === 'malformed') return malformed(named.detail)
    const name = this.#choose(named.value)
    if (name === null) {
      const nothing = named.value === null && parameters.user === null && (mqtt?.password ?? null) === null
      return nothing
        ? denied('ERR_CREDENTIALS_ABSENT', 'nothing that an authorizer could be asked about')
        : denied('ERR_AUTHORIZER_NOT_FOUND', 'the domain has no authorizer for this device')
    }
    const entry = this.#find(name)
    if (entry === null) return denied('ERR_AUTHORIZER_NOT_FOUND', `authorizer ${name} is not there, or not ACTIVE`)

    const token = parameters.token(entry.tokenKeyName)
    if (token.kind === 'malformed') return malformed(token.detail)
    const signature = parameters.signature()
    if (signature.kind === 'malformed') return malformed(signature.detail)
    if (entry.signingKeys !== null) {
      const signed = verifyToken(token.value, signature.value, entry.signingKeys)
      if (signed.kind === 'refused') return denied('ERR_TOKEN_SIGNATURE', signed.detail)
    }
    const question: Question = {
      http,
      mqtt,
      parameters,
      token: token.value,
      signatureVerified: entry.signingKeys !== null,
      serverName: this.#connection.serverName,
      certificate: this.#certificate && { id: this.#certificate.outcome.principal.id, pem: this.#certificate.pem },
      connectionId: connectionIdOf(this.#connection.id),
    }
    if (!fits(question)) return malformed('headers and query of more than 8 KiB')
    const dated = await this.#answer(entry, question, signal)
    const { answer } = dated
    if (answer.kind === 'no') return denied(answer.code, answer.detail)
    // A webhook or a module that names another one has failed already; a token or a password may be somebody else's.
    if (this.#certificate !== null && answer.principalId !== this.#certificate.outcome.principal.id) {
      return denied('ERR_CREDENTIALS_REFUSED', 'the authorizer names another principal than the certificate')
    }
    return this.#outcome(entry, answer, dated.answeredAt)
  }

  /** Wire specification §4.1. With the override off a name from outside is passed over, not refused. */
  #choose(named: string | null): string | null {
    const { allowed, defaultAuthorizer, allowOverride } = this.#options
    if (named === null || named === defaultAuthorizer || !allowOverride) return defaultAuthorizer
    return allowed.includes(named) ? named : null
  }

  #find(name: string): AuthorizerEntry | null {
    const entry = this.#options.registry()?.authorizer(name) ?? null
    return entry?.status === 'ACTIVE' ? entry : null
  }

  async #answer(entry: AuthorizerEntry, question: Question, signal: AbortSignal): Promise<Dated> {
    const { authorizers } = this.#options
    const asked = authorizers.of(entry)
    const { cache, deps } = authorizers
    const ask = (ending: AbortSignal) => asked.ask(question, ending)
    if (entry.shareForMs !== null) return cache.get(this.#key(entry, question, null), entry.shareForMs, ask, signal)
    // An upgrade is asked about once, and its answer is held for its connection anyway.
    if (entry.cacheForHttp && question.mqtt === null && question.http !== null) {
      return cache.get(this.#key(entry, question, this.#connection.id), Number.MAX_SAFE_INTEGER, ask, signal)
    }
    const answer = await ask(signal)
    return { answer, answeredAt: deps.now() }
  }

  /** Everything that was sent, and to whom; of the connection only where an answer is for it alone. */
  #key(entry: AuthorizerEntry, question: Question, connection: string | null): string {
    const { connectionMetadata: _, ...sent } = requestOf(question)
    return keyOver([
      this.#credentials.kind,
      this.#connection.domain.name,
      entry.name,
      entry.digest,
      connection,
      question.token?.bytes ?? null,
      // The requests of one connection differ in their length, which proves nothing of who sends them.
      JSON.stringify(sent, (name, value) => (connection !== null && name === 'content-length' ? undefined : value)),
    ])
  }

  #outcome(entry: AuthorizerEntry, yes: Yes, answeredAt: number): AuthOutcome {
    const registry = this.#options.registry()
    if (registry === null) return denied('ERR_AUTHORIZER_NOT_FOUND', 'the domain has no registry')
    const now = this.#options.authorizers.deps.now()
    this.#endsAt ??= answeredAt + yes.disconnectAfterMs
    const certificate = this.#certificate?.outcome ?? null
    // What the certificate says stands before what a claim of the same name does.
    const attributes = Object.assign(Object.create(null), yes.attributes, certificate?.principal.attributes, {
      authorizer: entry.name,
    }) as Readonly<Record<string, string>> // of texts all of them
    return {
      kind: 'authenticated',
      principal: { id: yes.principalId, method: this.#credentials.kind, attributes },
      grants: joined(yes.grants ?? registry.grants(yes.policies), certificate),
      variables: certificate?.variables ?? NO_VARIABLES,
      things: certificate?.things ?? NO_THINGS,
      disconnectAfterMs: Math.max(
        0,
        Math.min(this.#endsAt - now, certificate?.disconnectAfterMs ?? Number.POSITIVE_INFINITY),
      ),
      refreshAfterMs: yes.refreshAfterMs === null ? null : wholeMs(answeredAt + yes.refreshAfterMs - now),
      refresh: (signal) => this.#refresh(yes.principalId, signal),
      rejudge: () => this.#rejudge(entry, yes, answeredAt),
    }
  }

  /** As at the beginning; another principal would be another device. */
  async #refresh(principalId: string, signal: AbortSignal): Promise<AuthOutcome> {
    const stopped = this.#followSettings() ?? this.#rejudgeCertificate()
    if (stopped !== null) return stopped
    const outcome = await this.ask(signal)
    if (outcome.kind === 'denied' || outcome.principal.id === principalId) return outcome
    return denied('ERR_AUTHORIZATION_ENDED', 'the authorizer names another principal than before')
  }

  /** From here on the settings that count now are asked. */
  #followSettings(): Denial | null {
    const { inForce } = this.#options
    const now = inForce === undefined ? this.#options : inForce(this.#connection)
    if (now === null) return GONE
    this.#options = now
    return null
  }

  #rejudgeCertificate(): Denial | null {
    if (this.#certificate === null) return null
    const outcome = this.#certificate.outcome.rejudge()
    if (outcome.kind === 'denied') return outcome
    this.#certificate = { ...this.#certificate, outcome }
    return null
  }

  #rejudge(entry: AuthorizerEntry, yes: Yes, answeredAt: number): AuthOutcome {
    const stopped = this.#followSettings() ?? this.#rejudgeCertificate()
    if (stopped !== null) return stopped
    const { allowed, defaultAuthorizer } = this.#options
    if (entry.name !== defaultAuthorizer && !allowed.includes(entry.name)) {
      return denied('ERR_AUTHORIZATION_ENDED', `the domain has no authorizer ${entry.name} any more`)
    }
    const current = this.#find(entry.name)
    if (current === null || current.kind !== entry.kind) {
      return denied('ERR_AUTHORIZATION_ENDED', `authorizer ${entry.name} is not there any more, or not ACTIVE`)
    }
    if (current.kind === 'password' && !sameUser(entry, current, yes.principalId)) {
      return denied('ERR_AUTHORIZATION_ENDED', 'the user is not in the file any more, or has another password')
    }
    const policies = 'policies' in current ? current.policies : yes.policies
    return this.#outcome(entry, { ...yes, policies }, answeredAt)
  }
}

function sameUser(before: AuthorizerEntry, now: AuthorizerEntry, user: string): boolean {
  if (before.kind !== 'password' || now.kind !== 'password') return false
  const [old, current] = [before.users.get(user), now.users.get(user)]
  return old !== undefined && current !== undefined && old.hash.equals(current.hash) && old.salt.equals(current.salt)
}

function joined(grants: Grants, certificate: Authenticated | null): Grants {
  return certificate === null ? grants : joinGrants(certificate.grants, grants)
}

/** What is left, for a timer. */
const wholeMs = (ms: number): number => Math.max(0, Math.ceil(ms))

const denied = (code: FailureCode, detail: string): Denial => ({ kind: 'denied', code, detail })
const malformed = (detail: string): Denial => denied('ERR_CREDENTIALS_MALFORMED', detail)

/** For the front: names under which clients of a domain may send a token in headers or query. */
export function tokenKeyNames(options: Pick<CustomOptions, 'registry' | 'allowed' | 'defaultAuthorizer'>): string[] {
  const names = new Set(options.allowed)
  if (options.defaultAuthorizer !== null) names.add(options.defaultAuthorizer)
  const found = new Set<string>()
  for (const name of names) {
    const key = options.registry()?.authorizer(name)?.tokenKeyName ?? null
    if (key !== null) found.add(key)
  }
  return [...found]
}
