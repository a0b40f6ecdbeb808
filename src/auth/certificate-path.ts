import type { X509Certificate } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { PeerCertificate } from '../connection.ts'
import type { FailureCode } from '../errors.ts'
import { factsOf } from '../registry/certificate-facts.ts'
import type { RevocationLists } from '../registry/crl.ts'
import type { AuthOutcome } from './authenticator.ts'

// Who signed a certificate, and whether somebody in that line has taken his word back.

export interface PathOptions {
  /** True if the TLS library was given the domain's CAs; without them its verdict means nothing. */
  readonly hasCa: boolean
  readonly caCertificates: readonly X509Certificate[]
  /** Those in force; null: no CRLs are configured, and none are asked for. */
  readonly revocation: () => RevocationLists | null
  /** What a list past its nextUpdate means for the certificates it does not name. */
  readonly onExpired: 'keep' | 'deny'
  readonly onMissing: 'allow' | 'deny'
}

export type Denial = Extract<AuthOutcome, { readonly kind: 'denied' }>

/** id-kp-clientAuth, RFC 5280 §4.2.1.12. anyExtendedKeyUsage does not stand for it: OpenSSL does not take it either. */
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
/** More presented certificates than this are not looked at. */
const MAX_PRESENTED = 16
/** The longest serial number that a CA may give, RFC 5280 §4.1.2.2, and that a CRL here can name. */
const MAX_SERIAL_BYTES = 20

/** An extended key usage that is present must allow it. Bun's library does not look at it by itself. */
export function isForClients(leaf: X509Certificate): boolean {
  const { purposes } = factsOf(leaf)
  return purposes === null || purposes.includes(CLIENT_AUTH)
}

/** A valid path for client authentication, and no certificate in it revoked. */
export function refusedByCa(options: PathOptions, peer: PeerCertificate, now: Date): Denial | null {
  if (!options.hasCa) return untrusted('the domain has no CA')
  if (peer.verifyError !== null) return untrusted(peer.verifyError)
  if (peer.resumed && !leadsToCa(peer, options.caCertificates, now)) {
    return untrusted('the chain of a resumed session leads to no CA of the domain that is valid now')
  }
  if (!isForClients(peer.leaf)) return untrusted('the extended key usage does not allow client authentication')
  const revocation = options.revocation()
  if (revocation === null) return null

  const path = issuance(peer, options.caCertificates)
  if (!path.anchored) return untrusted('no path to a CA of the domain could be rebuilt')
  let doubt: Denial | null = null
  for (const link of path.links) {
    const serial = serialOf(link.certificate)
    if (serial === null) return untrusted('a serial number that no revocation list can name')
    switch (revocation.statusOf(link.issuer, serial, now)) {
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
export function namedByCrl(
  options: PathOptions,
  peer: PeerCertificate,
  now: Date,
  issuers: readonly X509Certificate[] = options.caCertificates,
): Denial | null {
  const revocation = options.revocation()
  if (revocation === null) return null
  for (const link of issuance(peer, issuers).links) {
    const serial = serialOf(link.certificate)
    if (serial === null) return untrusted('a serial number that no revocation list can name')
    if (revocation.statusOf(link.issuer, serial, now) === 'revoked') return revoked(link)
  }
  return null
}

/**
 * Whether some line of issuers, each within its dates, leads to a CA of the domain. The library's verdict on a resumed
 * session is as old as the session; ticket keys see to it that it was about the same CAs, and this to the rest that time
 * can change.
 * @param now null: of a live session, which dates do not end; then the CAs are others, and a presented certificate must
 * say itself that it may issue
 */
export function leadsToCa(peer: PeerCertificate, anchors: readonly X509Certificate[], now: Date | null): boolean {
  // Most devices present no more than their own certificate, which a CA issued itself; to ask for the rest costs far more.
  return climbs(peer.leaf, anchors, anchors, now) || climbs(peer.leaf, anchors, presented(peer, anchors), now)
}

function climbs(
  leaf: X509Certificate,
  anchors: readonly X509Certificate[],
  pool: readonly X509Certificate[],
  now: Date | null,
): boolean {
  const trusted = new Set(anchors.map((anchor) => anchor.fingerprint256))
  const reached = new Set([leaf.fingerprint256])
  const waiting = [leaf]
  for (let certificate = waiting.pop(); certificate !== undefined; certificate = waiting.pop()) {
    if (now !== null && !isInDates(certificate, now)) continue
    if (trusted.has(certificate.fingerprint256)) return true
    for (const issuer of pool) {
      if (reached.has(issuer.fingerprint256) || !isIssuedBy(certificate, issuer)) continue
      if (now === null && !issuer.ca && !trusted.has(issuer.fingerprint256)) continue
      reached.add(issuer.fingerprint256)
      waiting.push(issuer)
    }
  }
  return false
}

const presented = ({ chain }: PeerCertificate, anchors: readonly X509Certificate[]): readonly X509Certificate[] => [
  ...anchors,
  ...chain.slice(0, MAX_PRESENTED),
]

/** Written so that a date the library cannot tell (NaN) is none. */
function isInDates(certificate: X509Certificate, now: Date): boolean {
  const { validFrom, validTo } = factsOf(certificate)
  return validFrom <= now.getTime() && now.getTime() <= validTo
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

/** Pairs of certificates whose answer is kept, some 400 bytes each. */
const MAX_KNOWN = 4_096
/** Who signed whom never changes, and to ask costs a tenth of a handshake. By SHA-256 of both, signatures included. */
const issued = new LRUCache<string, boolean>({ max: MAX_KNOWN })

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  const pair = `${certificate.fingerprint256} ${issuer.fingerprint256}`
  const known = issued.get(pair)
  if (known !== undefined) return known
  const answer = isSignedBy(certificate, issuer)
  issued.set(pair, answer)
  return answer
}

function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
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

export function denied(code: FailureCode, detail: string): Denial {
  return { kind: 'denied', code, detail }
}

/** For people: on one line, and not all of it. */
function nameOf(certificate: X509Certificate): string {
  return certificate.subject.replace(/\s+/g, ' ').slice(0, 128)
}
