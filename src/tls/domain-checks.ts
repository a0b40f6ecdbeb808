import { createPrivateKey, type X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { createSecureContext } from 'node:tls'
import { COMBINATIONS, wantsCertificate as wantCertificates } from './admission.ts'
import {
  certificatesOf,
  type DomainOptions,
  type DomainsOptions,
  mayResume,
  normal,
  rowsOf,
  secureContextOptions,
  trustsCa,
} from './domain-options.ts'
import type { DomainsDeps } from './domains.ts'
import { contextOptions, TLS_RUNTIME } from './policies.ts'

export interface DomainsReport {
  /** Any of these and the settings cannot be served. */
  readonly issues: readonly string[]
  readonly warnings: readonly string[]
}

const MIN_RSA_BITS = 2_048
/** Certificates closer to their end than this are warned of. */
const EXPIRY_WARNING_MS = 14 * 24 * 60 * 60 * 1_000

/** OIDs of extended key usage: serverAuth, anyExtendedKeyUsage. RFC 5280 §4.2.1.12. */
const SERVER_USAGES = ['1.3.6.1.5.5.7.3.1', '2.5.29.37.0']

/** Letters, digits and hyphens in labels of 1–63, 253 in all; the form in which a ClientHello can name it. */
const HOST_NAME = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error)).slice(0, 300)

/** Everything that can be known of certificates and names before the first device comes. */
export function checkDomains(settings: DomainsOptions, deps: DomainsDeps = {}): DomainsReport {
  const issues: string[] = []
  const warnings: string[] = []
  const now = (deps.now ?? Date.now)()
  const runtime = deps.runtime ?? TLS_RUNTIME
  const owners = new Map<string, number>()

  for (const [index, options] of settings.domains.entries()) {
    const where = `domains[${index}] (${options.serverNames[0] ?? 'no name'})`
    const before = issues.length
    const issue = (text: string) => issues.push(`${where}: ${text}`)
    const warn = (text: string) => warnings.push(`${where}: ${text}`)

    if (options.serverNames.length === 0) issue('needs at least one server name')
    for (const serverName of options.serverNames) {
      const name = normal(serverName)
      if (!HOST_NAME.test(name) || isIP(name) !== 0) {
        issue(
          `"${serverName}" is not a host name; wildcards and addresses cannot be server names, and other scripts are written xn--…`,
        )
      }
      const owner = owners.get(name)
      if (owner !== undefined) issue(`"${serverName}" already belongs to domains[${owner}]`)
      owners.set(name, index)
    }

    if (!COMBINATIONS[options.authenticationType].includes(options.applicationProtocol)) {
      const may = COMBINATIONS[options.authenticationType].join(' or ')
      issue(
        `authenticationType ${options.authenticationType} goes with applicationProtocol ${may}, not ${options.applicationProtocol}`,
      )
    }

    const policy = contextOptions(options.tlsPolicy, runtime)
    if (policy.kind === 'refused') issue(policy.detail)
    else if (policy.missing.length > 0) warn(`${options.tlsPolicy} is served without ${policy.missing.join(', ')}`)

    if (options.sessionTickets !== null && wantCertificates(rowsOf(options)) && !mayResume(options, true, runtime)) {
      warn(
        'sessionTickets: this TLS library (OpenSSL) forgets the chain of a resumed session, which is judged here by CA, revocation list or callback: ways in with client certificates are served without tickets',
      )
    }
    checkCertificates(options, now, issue, warn)
    checkCas(options, now, issue, warn)

    // The TLS library has rules of its own (a weak digest in a chain, a curve it lacks): better told now than at a connect.
    if (issues.length === before) {
      try {
        createSecureContext(secureContextOptions(options, '0', true, runtime, null))
      } catch (error) {
        issue(`the TLS library refuses these settings: ${messageOf(error)}`)
      }
    }
  }
  return { issues, warnings }
}

type Say = (text: string) => void

function checkCertificates(options: DomainOptions, now: number, issue: Say, warn: Say): void {
  const { certificates, serverNames } = options
  if (certificates.length === 0) issue('needs a certificate and its key')
  const kinds = new Set<string>()
  for (const { certPem, keyPem, certFile, keyFile } of certificates) {
    let chain: X509Certificate[]
    try {
      chain = certificatesOf(certPem)
    } catch (error) {
      issue(`${certFile} cannot be read as certificates: ${messageOf(error)}`)
      continue
    }
    const leaf = chain[0]
    if (!leaf) {
      issue(`${certFile} holds no PEM certificate`)
      continue
    }
    try {
      if (!leaf.checkPrivateKey(createPrivateKey(keyPem))) issue(`${keyFile} is not the key of ${certFile}`)
    } catch (error) {
      issue(`${keyFile} cannot be read as a private key without a passphrase: ${messageOf(error)}`)
    }

    const { asymmetricKeyType: kind, asymmetricKeyDetails: details } = leaf.publicKey
    if (kind !== 'rsa' && kind !== 'ec') {
      issue(`${certFile} has a key of kind ${kind}; use ECDSA or RSA`)
    } else {
      if (kinds.has(kind))
        issue(`${certFile} is a second ${kind} certificate; a domain has one RSA and one ECDSA at most`)
      kinds.add(kind)
    }
    if (kind === 'rsa' && (details?.modulusLength ?? 0) < MIN_RSA_BITS) {
      issue(`${certFile} has an RSA key of ${details?.modulusLength} bits; at least ${MIN_RSA_BITS} are needed`)
    }

    for (const serverName of serverNames) {
      if (leaf.checkHost(normal(serverName)) === undefined) issue(`${certFile} does not cover "${serverName}"`)
    }
    // An absent extension allows every use (RFC 5280 §4.2.1.12); OpenSSL and BoringSSL give undefined or an empty list.
    const usages: readonly string[] = leaf.keyUsage ?? []
    if (usages.length > 0 && !usages.some((oid) => SERVER_USAGES.includes(oid))) {
      issue(`${certFile} has an extended key usage without serverAuth; devices would refuse it`)
    }
    if (leaf.ca) warn(`${certFile} begins with a CA certificate; the leaf belongs first`)

    for (const [place, certificate] of chain.entries()) {
      const what = place === 0 ? certFile : `certificate ${place + 1} of ${certFile}`
      checkDates(what, certificate, now, warn)
      const issuer = chain[place + 1]
      if (issuer && !certificate.checkIssued(issuer)) warn(`${what} was not issued by the one after it`)
    }
  }
}

function checkCas(options: DomainOptions, now: number, issue: Say, warn: Say): void {
  if (!trustsCa(options)) return
  let found = 0
  for (const [index, pem] of options.caPems.entries()) {
    try {
      for (const ca of certificatesOf(pem)) {
        found += 1
        if (!ca.ca)
          issue(
            `"${ca.subject.replaceAll('\n', ', ').slice(0, 200)}" in clientTrust.ca[${index}] is not a CA certificate`,
          )
        checkDates(`clientTrust.ca[${index}]`, ca, now, warn)
      }
    } catch (error) {
      issue(`clientTrust.ca[${index}] cannot be read as certificates: ${messageOf(error)}`)
      return
    }
  }
  if (found === 0) issue(`clientTrust.mode ${options.trustMode} needs at least one certificate in clientTrust.ca`)
}

function checkDates(what: string, certificate: X509Certificate, now: number, warn: Say): void {
  const from = Date.parse(certificate.validFrom)
  const to = Date.parse(certificate.validTo)
  if (now < from) warn(`${what} is not valid before ${certificate.validFrom}`)
  if (now > to) warn(`${what} expired at ${certificate.validTo}`)
  else if (to - now < EXPIRY_WARNING_MS) warn(`${what} expires at ${certificate.validTo}`)
}
