import { createHash, type X509Certificate } from 'node:crypto'
import type { PeerCertificate } from '../connection.ts'
import { type FailureCode, ProxyError } from '../errors.ts'
import { NO_VARIABLES, OPEN_GRANTS } from '../policy/permit.ts'
import type { RevocationLists } from '../registry/crl.ts'
import { NO_THINGS } from '../registry/entries.ts'
import type { CertificateStatus, Recognition, Registry } from '../registry/registry.ts'
import type { TrustMode } from '../tls/domains.ts'
import type { Authenticator, AuthOutcome, Credentials } from './authenticator.ts'

export interface X509Options {
  readonly mode: TrustMode
  readonly registry: Registry | null
  /** True if the TLS library was given the domain's CAs (without them its verdict means nothing); else told by `caCertificates`. */
  readonly hasCa?: boolean
  readonly caCertificates: readonly X509Certificate[]
  /** Null: no CRLs are configured, and none are asked for. */
  readonly revocation: RevocationLists | null
  /** What a list past its nextUpdate means for the certificates it does not name. */
  readonly onExpired: 'keep' | 'deny'
  readonly onMissing: 'allow' | 'deny'
  readonly now?: () => Date
  /** 2048 by default. */
  readonly minRsaBits?: number
  /** 8192 by default: the price of a verification grows with the square of the size. */
  readonly maxRsaBits?: number
}

type Denial = Extract<AuthOutcome, { readonly kind: 'denied' }>

/** id-kp-clientAuth, RFC 5280 §4.2.1.12. anyExtendedKeyUsage does not stand for it: OpenSSL does not take it either. */
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
/** As OpenSSL names P-256, P-384 and P-521. */
const CURVES: ReadonlySet<string> = new Set(['prime256v1', 'secp384r1', 'secp521r1'])
/** More presented certificates than this are not looked at. */
const MAX_PRESENTED = 16
/** The longest serial number that a CA may give, RFC 5280 §4.1.2.2, and that a CRL here can name. */
const MAX_SERIAL_BYTES = 20

const STATUS_CODES: Readonly<Record<Exclude<CertificateStatus, 'ACTIVE'>, FailureCode>> = {
  INACTIVE: 'ERR_CERTIFICATE_INACTIVE',
  PENDING_ACTIVATION: 'ERR_CERTIFICATE_INACTIVE',
  REVOKED: 'ERR_CERTIFICATE_REVOKED',
}

/** A client certificate, judged by the registry, the CAs and the revocation lists of one domain. */
export function x509(options: X509Options): Authenticator<Extract<Credentials, { readonly kind: 'x509' }>> {
  return {
    method: 'x509',
    async authenticate({ peer }) {
      try {
        return decide(options, peer)
      } catch (error) {
        // Whatever went wrong, nobody is admitted by it.
        throw new ProxyError('ERR_IDENTITY_FAULT', 'the certificate could not be judged', { cause: error })
      }
    },
  }
}

function decide(options: X509Options, peer: PeerCertificate | null): AuthOutcome {
  if (peer === null) return denied('ERR_CERTIFICATE_ABSENT', 'no client certificate')
  const { leaf } = peer
  const now = options.now?.() ?? new Date()
  const unfit = validityOf(leaf, now) ?? keyStrength(leaf, options.minRsaBits ?? 2048, options.maxRsaBits ?? 8192)
  if (unfit !== null) return unfit

  const known: Recognition = options.registry?.find(leaf) ?? { kind: 'unknown' }
  if (known.kind === 'unreadable') return denied('ERR_CERTIFICATE_UNTRUSTED_CA', 'the certificate is not DER')
  if ((known.kind === 'registered' || known.kind === 'twin') && known.entry.status !== 'ACTIVE') {
    const how = known.kind === 'twin' ? 'has the same contents or serial number as one that is' : 'is'
    return denied(STATUS_CODES[known.entry.status], `the certificate ${how} ${known.entry.status} in the registry`)
  }

  const refusal = trust(options, peer, known.kind === 'registered', now)
  if (refusal !== null) return refusal
  const rejudge = (): AuthOutcome => decide(options, peer)
  return {
    kind: 'authenticated',
    principal: principalOf(leaf),
    grants: OPEN_GRANTS,
    variables: NO_VARIABLES,
    things: NO_THINGS,
    disconnectAfterMs: null,
    refreshAfterMs: null,
    refresh: async () => rejudge(),
    rejudge,
  }
}

function trust(options: X509Options, peer: PeerCertificate, registered: boolean, now: Date): Denial | null {
  const byRegistry = () => (registered ? namedByCrl(options, peer, now) : notRegistered())
  switch (options.mode) {
    case 'registry':
      return byRegistry()
    case 'ca':
      return byCa(options, peer, now)
    case 'registry-or-ca':
      return registered ? byRegistry() : byCa(options, peer, now)
    case 'registry-and-ca':
      return byRegistry() ?? byCa(options, peer, now)
  }
}

function notRegistered(): Denial {
  return denied('ERR_CERTIFICATE_NOT_REGISTERED', 'the registry does not know the certificate')
}

/** A valid path for client authentication, and no certificate in it revoked. */
function byCa(options: X509Options, peer: PeerCertificate, now: Date): Denial | null {
  if (!(options.hasCa ?? options.caCertificates.length > 0)) return untrusted('the domain has no CA')
  if (peer.verifyError !== null) return untrusted(peer.verifyError)
  // Node calls the extended key usage `keyUsage`. Bun's library does not look at it by itself.
  const purposes = peer.leaf.keyUsage as readonly string[] | undefined
  if (purposes !== undefined && !purposes.includes(CLIENT_AUTH)) {
    return untrusted('the extended key usage does not allow client authentication')
  }
  if (options.revocation === null) return null

  const path = issuance(peer, options.caCertificates)
  if (!path.anchored) return untrusted('no path to a CA of the domain could be rebuilt')
  let doubt: Denial | null = null
  for (const link of path.links) {
    const serial = serialOf(link.certificate)
    if (serial === null) return untrusted('a serial number that no revocation list can name')
    switch (options.revocation.statusOf(link.issuer, serial, now)) {
      case 'good':
        break
      case 'revoked':
        return revoked(link)
      case 'missing':
        if (options.onMissing === 'deny')
          doubt ??= denied('ERR_CRL_MISSING', `no revocation list of ${nameOf(link.issuer)}`)
        break
      case 'expired':
        if (options.onExpired === 'deny') {
          doubt ??= denied('ERR_CRL_EXPIRED', `the revocation list of ${nameOf(link.issuer)} is past its nextUpdate`)
        }
        break
    }
  }
  return doubt
}

/** The registry admits on its own; a CRL is asked only whether it names the device, never for being there or fresh. */
function namedByCrl(options: X509Options, peer: PeerCertificate, now: Date): Denial | null {
  if (options.revocation === null) return null
  for (const link of issuance(peer, options.caCertificates).links) {
    const serial = serialOf(link.certificate)
    if (serial === null) return untrusted('a serial number that no revocation list can name')
    if (options.revocation.statusOf(link.issuer, serial, now) === 'revoked') return revoked(link)
  }
  return null
}

interface Link {
  readonly certificate: X509Certificate
  readonly issuer: X509Certificate
}

/**
 * Who signed whom, from the leaf upward, by name and by signature. Where cross-signing makes several paths, all of them
 * are followed: the TLS library does not say which one it took, and a device chooses what it presents.
 */
function issuance(
  peer: PeerCertificate,
  anchors: readonly X509Certificate[],
): { readonly links: readonly Link[]; readonly anchored: boolean } {
  const trusted = new Set(anchors.map((anchor) => anchor.fingerprint256))
  const pool = new Map<string, X509Certificate>()
  for (const certificate of [...anchors, ...peer.chain.slice(0, MAX_PRESENTED)]) {
    pool.set(certificate.fingerprint256, certificate)
  }
  const links: Link[] = []
  const reached = new Set([peer.leaf.fingerprint256])
  const waiting = [peer.leaf]
  let anchored = false
  for (let certificate = waiting.pop(); certificate !== undefined; certificate = waiting.pop()) {
    const isTrusted = trusted.has(certificate.fingerprint256)
    // A trusted root ends the path; nobody above could revoke it.
    if (isTrusted && certificate.checkIssued(certificate)) {
      anchored = true
      continue
    }
    let issuers = 0
    for (const [fingerprint, issuer] of pool) {
      if (fingerprint === certificate.fingerprint256 || !isIssuedBy(certificate, issuer)) continue
      issuers++
      links.push({ certificate, issuer })
      if (reached.has(fingerprint)) continue
      reached.add(fingerprint)
      waiting.push(issuer)
    }
    // A trusted intermediate whose root nobody has is an anchor too.
    if (isTrusted && issuers === 0) anchored = true
  }
  return { links, anchored }
}

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  // Whether it may issue at all was the TLS library's to say. Asking here again could only lose a link, and with it a
  // revocation: `issuer.ca` is false for a root of X.509 version 1.
  if (!certificate.checkIssued(issuer)) return false
  try {
    return certificate.verify(issuer.publicKey)
  } catch {
    // A presented «issuer» may hold a key that the library cannot read; it has not signed this.
    return false
  }
}

/** Written so that a date the library cannot tell (NaN) refuses. */
function validityOf(leaf: X509Certificate, now: Date): Denial | null {
  if (!(leaf.validFromDate.getTime() <= now.getTime())) {
    return denied('ERR_CERTIFICATE_NOT_YET_VALID', `valid from ${leaf.validFrom}`)
  }
  if (!(now.getTime() <= leaf.validToDate.getTime())) {
    return denied('ERR_CERTIFICATE_EXPIRED', `valid until ${leaf.validTo}`)
  }
  return null
}

function keyStrength(leaf: X509Certificate, minRsaBits: number, maxRsaBits: number): Denial | null {
  const weak = (detail: string) => denied('ERR_CERTIFICATE_WEAK_KEY', detail)
  let key: X509Certificate['publicKey']
  try {
    key = leaf.publicKey
  } catch {
    return weak('a key of an unknown kind')
  }
  const { modulusLength = 0, publicExponent = 0n, namedCurve = '' } = key.asymmetricKeyDetails ?? {}
  switch (key.asymmetricKeyType) {
    case 'rsa':
    case 'rsa-pss':
      if (modulusLength < minRsaBits || modulusLength > maxRsaBits) return weak(`RSA of ${modulusLength} bits`)
      return publicExponent > 1n && publicExponent % 2n === 1n ? null : weak(`RSA with the exponent ${publicExponent}`)
    case 'ec':
      return CURVES.has(namedCurve) ? null : weak(`the curve ${namedCurve || 'is not a named one'}`)
    default:
      return weak(`a key of the kind ${key.asymmetricKeyType}`)
  }
}

function principalOf(leaf: X509Certificate) {
  const id = createHash('sha256').update(leaf.raw).digest('hex')
  const commonName = commonNameOf(leaf)
  return { id, method: 'x509', attributes: commonName === null ? {} : { commonName } } as const
}

/**
 * From the library's own reading of the name, never by splitting `subject` (CVE-2021-44532). Null when there is none, or
 * more than one (the library makes an array of them), or when it holds control characters.
 */
function commonNameOf(leaf: X509Certificate): string | null {
  const name: unknown = leaf.toLegacyObject().subject?.CN
  if (typeof name !== 'string' || name === '' || name.length > 256) return null
  return /[\u0000-\u001f\u007f-\u009f]/.test(name) ? null : name
}

/** Octets of a positive serial number that a revocation list can name; null for any other. */
function serialOf(certificate: X509Certificate): Buffer | null {
  const hex = certificate.serialNumber
  if (!/^[0-9A-Fa-f]+$/.test(hex)) return null
  const serial = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex')
  return serial.length > MAX_SERIAL_BYTES ? null : serial
}

function revoked(link: Link): Denial {
  return denied(
    'ERR_CERTIFICATE_REVOKED',
    `serial ${link.certificate.serialNumber} is revoked by ${nameOf(link.issuer)}`,
  )
}

function untrusted(detail: string): Denial {
  return denied('ERR_CERTIFICATE_UNTRUSTED_CA', detail)
}

function denied(code: FailureCode, detail: string): Denial {
  return { kind: 'denied', code, detail }
}

/** For people: on one line, and not all of it. */
function nameOf(certificate: X509Certificate): string {
  return certificate.subject.replace(/\s+/g, ' ').slice(0, 128)
}
