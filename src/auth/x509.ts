import type { X509Certificate } from 'node:crypto'
import type { PeerCertificate, SecuredConnection } from '../connection.ts'
import { type FailureCode, ProxyError } from '../errors.ts'
import { type Grants, NO_GRANTS, type Variables } from '../policy/permit.ts'
import type { RegisteredCa } from '../registry/cas.ts'
import { factsOf } from '../registry/certificate-facts.ts'
import { NO_THINGS, type Things } from '../registry/entries.ts'
import type { CertificateEntry, CertificateStatus, Recognition, Registry } from '../registry/registry.ts'
import type { SelfRegistration } from '../registry/self-registration.ts'
import type { TrustMode } from '../tls/domain-options.ts'
import {
  type Authenticated,
  type Authenticator,
  type AuthOutcome,
  type Credentials,
  GONE,
  type Principal,
} from './authenticator.ts'
import {
  type Denial,
  denied,
  isForClients,
  leadsToCa,
  namedByCrl,
  type PathOptions,
  refusedByCa,
} from './certificate-path.ts'
import { certificateVariables } from './certificate-variables.ts'

export interface X509Options extends PathOptions {
  readonly mode: TrustMode
  /** The one in force; null where the domain has none. */
  readonly registry: () => Registry | null
  /** Names of policies for certificates trusted by CA that the registry does not know; without one, no permission. */
  readonly policies: readonly string[]
  /** End the session when the certificate expires; else it is asked only at the beginning. */
  readonly cutAtExpiry?: boolean
  /** Registers unknown devices of a CA at their first connection; null: nobody registers itself. */
  readonly registration?: SelfRegistration | null
  readonly now?: () => Date
  /** 2048 by default. */
  readonly minRsaBits?: number
  /** 8192 by default: the price of a verification grows with the square of the size. */
  readonly maxRsaBits?: number
  /** Those that count by now for a connection that these let in; null: its domain or its way in is gone. Absent: these. */
  readonly inForce?: (connection: SecuredConnection) => X509Options | null
}

/** As OpenSSL names P-256, P-384 and P-521. */
const CURVES: ReadonlySet<string> = new Set(['prime256v1', 'secp384r1', 'secp521r1'])

const STATUS_CODES: Readonly<Record<Exclude<CertificateStatus, 'ACTIVE'>, FailureCode>> = {
  INACTIVE: 'ERR_CERTIFICATE_INACTIVE',
  PENDING_ACTIVATION: 'ERR_CERTIFICATE_INACTIVE',
  REVOKED: 'ERR_CERTIFICATE_REVOKED',
}

/** A client certificate, judged by the registry, the CAs and the revocation lists of one domain, as they are now. */
export function x509(options: X509Options): Authenticator<Extract<Credentials, { readonly kind: 'x509' }>> {
  return {
    method: 'x509',
    async authenticate({ peer }, connection) {
      try {
        if (peer === null) return denied('ERR_CERTIFICATE_ABSENT', 'no client certificate')
        const now = options.now?.() ?? new Date()
        const { leaf } = peer
        const unfit = validityOf(leaf, now) ?? keyStrength(leaf, options.minRsaBits ?? 2048, options.maxRsaBits ?? 8192)
        if (unfit !== null) return unfit
        const known = recognize(options, leaf)
        const outcome = decide({ options, peer, cas: options.caCertificates, connection }, peer, known, now)
        return outcome.kind === 'denied' ? await firstContact(options, peer, known, outcome, now) : outcome
      } catch (error) {
        if (error instanceof ProxyError) throw error
        // Whatever went wrong, nobody is admitted by it.
        throw new ProxyError('ERR_IDENTITY_FAULT', 'the certificate could not be judged', { cause: error })
      }
    },
  }
}

function recognize(options: X509Options, leaf: X509Certificate): Recognition {
  return options.registry()?.find(leaf) ?? { kind: 'unknown' }
}

/** A device at the door or behind it. */
interface Case {
  readonly options: X509Options
  /** As it was presented, with the verdict of then. */
  readonly peer: PeerCertificate
  /** Those that the verdict was about. */
  readonly cas: readonly X509Certificate[]
  readonly connection: SecuredConnection
}

/**
 * What registry, CAs and lists say now, of a certificate that was fit when it came.
 * @param seen the certificate with the verdict that counts now
 */
function decide(one: Case, seen: PeerCertificate, known: Recognition, now: Date): AuthOutcome {
  const { options } = one
  if (known.kind === 'unreadable') return denied('ERR_CERTIFICATE_UNTRUSTED_CA', 'the certificate is not DER')
  if ((known.kind === 'registered' || known.kind === 'twin') && known.entry.status !== 'ACTIVE') {
    const how = known.kind === 'twin' ? 'has the same contents or serial number as one that is' : 'is'
    return denied(STATUS_CODES[known.entry.status], `the certificate ${how} ${known.entry.status} in the registry`)
  }
  return trust(options, seen, known.kind === 'registered', now) ?? admitted(one, known, now)
}

function admitted({ options, peer, cas, connection }: Case, known: Recognition, now: Date): Authenticated {
  const registry = options.registry()
  // A changed copy that a CA vouches for is the device that is registered: no more, and no less, than it.
  const same = known.kind === 'registered' || (known.kind === 'twin' && known.same === 'contents')
  const entry: CertificateEntry | null = same ? known.entry : null
  const things = (entry === null ? null : registry?.things(entry.things, entry.exclusive)) ?? NO_THINGS
  const grants = registry?.grants(entry?.policies ?? options.policies) ?? NO_GRANTS
  const disconnectAfterMs = options.cutAtExpiry ? Math.max(0, factsOf(peer.leaf).validTo - now.getTime()) : null
  // That the chain of a resumed session leads to a CA of today has just been asked; a live session is not ended by dates.
  const seen = peer.resumed ? new Seen(peer, peer.verifyError) : peer
  const principal = principalOf(peer.leaf, entry, things)
  return new Proved({ options, peer: seen, cas, connection }, principal, grants, things, disconnectAfterMs)
}

/** One for each session, for as long as it lives. */
class Proved implements Authenticated {
  readonly kind = 'authenticated'
  readonly principal: Principal
  readonly grants: Grants
  readonly variables: Variables
  readonly things: Things
  readonly disconnectAfterMs: number | null
  readonly refreshAfterMs = null
  readonly #case: Case

  constructor(one: Case, principal: Principal, grants: Grants, things: Things, disconnectAfterMs: number | null) {
    this.#case = one
    this.principal = principal
    this.grants = grants
    this.variables = certificateVariables(one.peer.leaf)
    this.things = things
    this.disconnectAfterMs = disconnectAfterMs
  }

  async refresh(): Promise<AuthOutcome> {
    return this.rejudge()
  }

  rejudge(): AuthOutcome {
    return judgeAgain(this.#case)
  }
}

/** Of a live session. Its dates were right when it came, and are asked again only where a session ends with them. */
function judgeAgain({ options: before, peer, cas, connection }: Case): AuthOutcome {
  try {
    const options = before.inForce === undefined ? before : before.inForce(connection)
    if (options === null) return GONE
    const now = options.now?.() ?? new Date()
    const expired = options.cutAtExpiry ? validityOf(peer.leaf, now) : null
    if (expired !== null) return expired
    const seen = sameCas(cas, options.caCertificates) ? peer : seenByCas(peer, options.caCertificates)
    return decide({ options, peer, cas, connection }, seen, recognize(options, peer.leaf), now)
  } catch {
    return denied('ERR_IDENTITY_FAULT', 'the certificate could not be judged again')
  }
}

function sameCas(ones: readonly X509Certificate[], others: readonly X509Certificate[]): boolean {
  if (ones === others) return true
  const prints = (cas: readonly X509Certificate[]) => cas.map((ca) => ca.fingerprint256).sort()
  return prints(ones).join() === prints(others).join()
}

/** The same device with another verdict. Its chain is not asked for before somebody wants it. */
class Seen implements PeerCertificate {
  readonly verifyError: string | null
  readonly resumed: boolean
  readonly #peer: PeerCertificate

  constructor(peer: PeerCertificate, verifyError: string | null, resumed = false) {
    this.#peer = peer
    this.verifyError = verifyError
    this.resumed = resumed
  }

  get leaf(): X509Certificate {
    return this.#peer.leaf
  }

  get chain(): readonly X509Certificate[] {
    return this.#peer.chain
  }
}

/**
 * The TLS library's verdict was about other CAs. A yes of then counts where its path leads to a CA of now; a no stays one:
 * what was never proved to the library is not proved here.
 */
function seenByCas(peer: PeerCertificate, cas: readonly X509Certificate[]): PeerCertificate {
  if (peer.verifyError !== null || leadsToCa(peer, cas, null)) return peer
  return new Seen(peer, 'no path to a CA that the domain trusts by now', peer.resumed)
}

/** Somebody was refused: is it a device that registers itself, or waits for having done so? */
async function firstContact(
  options: X509Options,
  peer: PeerCertificate,
  known: Recognition,
  denial: Denial,
  now: Date,
): Promise<Denial> {
  const registration = options.registration ?? null
  if (registration === null) return denial
  if (known.kind === 'registered' && known.entry.status === 'PENDING_ACTIVATION') registration.waits(known.entry)
  const ca = known.kind === 'unknown' ? registeringCa(options, peer, now) : null
  if (ca === null) return denial
  if ('code' in ca) return ca
  const { code, detail } = await registration.attempt(peer.leaf, ca)
  return denied(code, detail)
}

/** The CA by which a stranger may register itself; null for none, or what else stands against it. */
function registeringCa(options: X509Options, peer: PeerCertificate, now: Date): RegisteredCa | Denial | null {
  // In mode ca the registry admits nobody, and where a CA is asked beside it, that must have said yes.
  if (options.mode === 'ca') return null
  const refusal = options.mode === 'registry-and-ca' ? refusedByCa(options, peer, now) : null
  if (refusal !== null) return refusal
  const ca = options.registry()?.issuerOf(peer.leaf) ?? null
  if (ca === null || ca.autoRegister.kind === 'no' || peer.leaf.ca || !isForClients(peer.leaf)) return null
  return namedByCrl(options, peer, now, [...options.caCertificates, ca.certificate]) ?? ca
}

function trust(options: X509Options, peer: PeerCertificate, registered: boolean, now: Date): Denial | null {
  const byRegistry = () => (registered ? namedByCrl(options, peer, now) : notRegistered())
  switch (options.mode) {
    case 'registry':
      return byRegistry()
    case 'ca':
      return refusedByCa(options, peer, now)
    case 'registry-or-ca':
      return registered ? byRegistry() : refusedByCa(options, peer, now)
    case 'registry-and-ca':
      return byRegistry() ?? refusedByCa(options, peer, now)
  }
}

function notRegistered(): Denial {
  return denied('ERR_CERTIFICATE_NOT_REGISTERED', 'the registry does not know the certificate')
}

/** Written so that a date the library cannot tell (NaN) refuses. */
function validityOf(leaf: X509Certificate, now: Date): Denial | null {
  const { validFrom, validTo } = factsOf(leaf)
  if (!(validFrom <= now.getTime())) {
    return denied('ERR_CERTIFICATE_NOT_YET_VALID', `valid from ${leaf.validFrom}`)
  }
  if (!(now.getTime() <= validTo)) {
    return denied('ERR_CERTIFICATE_EXPIRED', `valid until ${leaf.validTo}`)
  }
  return null
}

function keyStrength(leaf: X509Certificate, minRsaBits: number, maxRsaBits: number): Denial | null {
  const weak = (detail: string) => denied('ERR_CERTIFICATE_WEAK_KEY', detail)
  const { key } = factsOf(leaf)
  switch (key?.kind) {
    case 'rsa':
    case 'rsa-pss':
      if (key.bits < minRsaBits || key.bits > maxRsaBits) return weak(`RSA of ${key.bits} bits`)
      return key.exponent > 1n && key.exponent % 2n === 1n ? null : weak(`RSA with the exponent ${key.exponent}`)
    case 'ec':
      return CURVES.has(key.curve) ? null : weak(`the curve ${key.curve || 'is not a named one'}`)
    default:
      return weak(`a key of ${key?.kind === undefined ? 'an unknown kind' : `the kind ${key.kind}`}`)
  }
}

function principalOf(leaf: X509Certificate, entry: CertificateEntry | null, things: Things) {
  const { keys, commonName } = factsOf(leaf)
  const id = entry?.fingerprint ?? keys.fingerprint
  const attributes = {
    ...(commonName !== null && { commonName }),
    ...(things.exclusive !== null && { thingName: things.exclusive.name }),
  }
  return { id, method: 'x509', attributes } as const
}
