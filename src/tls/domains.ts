import { constants, createPrivateKey, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'
import { LRUCache } from 'lru-cache'
import type { TicketSecret } from '../store/ticket-secret.ts'
import {
  ADMISSIONS,
  type Admission,
  type ApplicationProtocol,
  type AuthenticationType,
  COMBINATIONS,
  type EndpointType,
  explicitAdmissions,
  wantsCertificate as wantCertificates,
} from './admission.ts'
import { contextOptions, TLS_RUNTIME, type TlsRuntime } from './policies.ts'
import { type AdmissionFacts, sessionIdContext, TICKET_FACTS, ticketKeys } from './tickets.ts'

export type TrustMode = 'registry' | 'ca' | 'registry-or-ca' | 'registry-and-ca'

/** One server name's settings, ready to serve: what AWS calls a domain configuration. */
export interface Domain {
  /** First of its server names; the `domain` in logs. */
  readonly name: string
  /** All of them, lower case. */
  readonly serverNames: readonly string[]
  readonly enabled: boolean
  /** Rows that this domain serves; ask `admit`. */
  readonly admissions: readonly Admission[]
  /** True when the port × ALPN table decides (`DEFAULT`), false when the domain fixes protocol and authentication. */
  readonly byAlpn: boolean
  readonly endpointType: EndpointType
  /** Name of its backend. */
  readonly backend: string
  /** Name of the registry that counts here; null when none does. */
  readonly registry: string | null
  readonly trust: Trust
  readonly tlsPolicy: string
  /** Suites of the policy that are not offered on this runtime. */
  readonly missingSuites: readonly string[]
  /** From accept to the end of the handshake. */
  readonly handshakeTimeoutMs: number
  /** Whether sessions are resumed here at all. */
  readonly resumes: boolean
  /**
   * The one cached context of (name, policy, generation, ticket keys), with or without a client certificate asked for.
   * `full`: no session is resumed and none can be later.
   */
  context(wantsCertificate: boolean, full?: boolean): SecureContext
}

/** Whose word counts for a client certificate. */
export interface Trust {
  readonly mode: TrustMode
  /** Empty in mode `registry`: then no verdict of the TLS library is asked for. */
  readonly caCertificates: readonly X509Certificate[]
}

export interface Domains {
  /** Counts up with every reload; two generations never share a context or a session id context. */
  readonly generation: number
  /** Every domain once, in the order of the settings. */
  readonly all: readonly Domain[]
  /** For the log and `check`: certificates near or past their end, suites that this runtime lacks. */
  readonly warnings: readonly string[]
  /** Exact look-up of a lower-case host name; whatever else comes in finds nothing. */
  find(serverName: string): Domain | null
  /** No connection begins here any more: the contexts go, and only a handshake that is under way has one made again. */
  retire(): void
}

export interface CertificateOptions {
  /** Leaf first, then what leads to the root. */
  readonly certPem: string
  readonly keyPem: string
  /** Only for messages. */
  readonly certFile: string
  readonly keyFile: string
}

export interface DomainOptions {
  readonly serverNames: readonly string[]
  readonly enabled: boolean
  /** One, or one RSA and one ECDSA. */
  readonly certificates: readonly CertificateOptions[]
  readonly tlsPolicy: string
  readonly authenticationType: AuthenticationType
  readonly applicationProtocol: ApplicationProtocol
  readonly endpointType: EndpointType
  readonly trustMode: TrustMode
  /** PEM files' contents, each with one or more certificates; used in the CA modes only. */
  readonly caPems: readonly string[]
  readonly handshakeTimeoutMs: number
  readonly backend: string
  readonly registry: string | null
  /** Null: every handshake is a full one. */
  readonly sessionTickets: { readonly lifetimeMs: number } | null
  /** Whether more of a device's chain is looked at than its own certificate: by CAs, revocation lists or a callback. */
  readonly judgesChains: boolean
}

export interface DomainsOptions {
  readonly generation: number
  readonly domains: readonly DomainOptions[]
}

export interface DomainsDeps {
  /** Milliseconds since 1970; `Date.now` when absent. */
  readonly now?: () => number
  readonly runtime?: TlsRuntime
  /** What ticket keys are made of; absent: no domain has tickets. */
  readonly ticketSecret?: TicketSecret
  /** Contexts held at once, over all domains. 14 KB each on Bun, 49 KB on Node. */
  readonly maxContexts?: number
}

export interface DomainsReport {
  /** Any of these and the settings cannot be served. */
  readonly issues: readonly string[]
  readonly warnings: readonly string[]
}

/** All that is wrong at once; `issues` has one line for each. */
export class DomainsError extends Error {
  override readonly name: string = 'DomainsError'
  readonly issues: readonly string[]

  constructor(issues: readonly string[]) {
    super(issues.join('\n'))
    this.issues = issues
  }
}

const MAX_CONTEXTS = 4_096
const MIN_RSA_BITS = 2_048
/** Certificates closer to their end than this are warned of. */
const EXPIRY_WARNING_MS = 14 * 24 * 60 * 60 * 1_000

/** OIDs of extended key usage: serverAuth, anyExtendedKeyUsage. RFC 5280 §4.2.1.12. */
const SERVER_USAGES = ['1.3.6.1.5.5.7.3.1', '2.5.29.37.0']

/** Letters, digits and hyphens in labels of 1–63, 253 in all; the form in which a ClientHello can name it. */
const HOST_NAME = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/

/**
 * No compression; the server's order of suites counts; a client may not renegotiate. BoringSSL has no compression and no
 * renegotiation for servers at all, and its constants are 0.
 */
const SECURE_OPTIONS =
  constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_NO_COMPRESSION | constants.SSL_OP_CIPHER_SERVER_PREFERENCE

/**
 * On OpenSSL, NO_TICKET in TLS 1.3 still sends two messages named NewSessionTicket that hold only a session id, and
 * Node gives no way to send none. Nothing redeems them: Node keeps no server-side sessions unless asked to.
 */
const WITHOUT_TICKETS = SECURE_OPTIONS | constants.SSL_OP_NO_TICKET

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error)).slice(0, 300)

const normal = (serverName: string): string => serverName.toLowerCase().replace(/\.$/, '')

/** The certificates of a PEM text, in their order. Throws on one that cannot be read. */
export function certificatesOf(pem: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]*-----END (?:TRUSTED )?CERTIFICATE-----/g) ?? []
  return blocks.map((block) => new X509Certificate(block))
}

const trustsCa = (options: DomainOptions): boolean => options.trustMode !== 'registry'

/** What sessions of a context are sealed with, and how long they last. */
interface Sealing {
  readonly keys: Buffer
  readonly lifetimeMs: number
}

function secureContextOptions(
  options: DomainOptions,
  idContext: string,
  wantsCertificate: boolean,
  runtime: TlsRuntime,
  sealing: Sealing | null,
): SecureContextOptions {
  const policy = contextOptions(options.tlsPolicy, runtime)
  if (policy.kind === 'refused') throw new Error(policy.detail)
  return {
    cert: options.certificates.map((certificate) => certificate.certPem),
    key: options.certificates.map((certificate) => certificate.keyPem),
    // An empty list and not `undefined`, which would load the default roots: 140 CAs whose devices nobody meant.
    ca: wantsCertificate && trustsCa(options) ? [...options.caPems] : [],
    // A listed intermediate is trusted for what it is; its root need not be listed too.
    allowPartialTrustChain: true,
    minVersion: policy.minVersion,
    maxVersion: policy.maxVersion,
    ...(policy.ciphers === null ? {} : { ciphers: policy.ciphers }),
    ...(policy.dhe ? { dhparam: 'auto' } : {}),
    honorCipherOrder: true,
    secureOptions: sealing === null ? WITHOUT_TICKETS : SECURE_OPTIONS,
    sessionIdContext: idContext,
    ...(sealing === null
      ? {}
      : { ticketKeys: sealing.keys, sessionTimeout: Math.max(1, Math.floor(sealing.lifetimeMs / 1_000)) }),
  }
}

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

function rowsOf({ authenticationType, applicationProtocol }: DomainOptions): readonly Admission[] {
  return authenticationType === 'DEFAULT' ? ADMISSIONS : explicitAdmissions(authenticationType, applicationProtocol)
}

/** A resumed device is judged as one that came anew; so the library must give back all that is looked at. */
function mayResume(options: DomainOptions, wantsCertificate: boolean, runtime: TlsRuntime): boolean {
  return !wantsCertificate || !options.judgesChains || TICKET_FACTS[runtime].keepsChain
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

/**
 * The domains of one generation of the settings, by server name.
 *
 * Contexts are made at their first use and then kept: on Node one costs 0.9 ms and is freed only by garbage
 * collection, so there is one per (name, policy, generation, certificate asked for) and never one per connection.
 *
 * @throws {DomainsError} with every issue that `checkDomains` finds.
 */
export function createDomains(settings: DomainsOptions, deps: DomainsDeps = {}): Domains {
  const { issues, warnings } = checkDomains(settings, deps)
  if (issues.length > 0) throw new DomainsError(issues)

  const runtime = deps.runtime ?? TLS_RUNTIME
  const { generation } = settings
  const contexts = new LRUCache<string, SecureContext>({ max: deps.maxContexts ?? MAX_CONTEXTS })

  // A context keeps the keys that it was made with, so those of a former secret go with it. With them go their sessions:
  // neither library can be given a key that opens and does not seal.
  let epoch = 0
  const inForce = (): Uint8Array | null => {
    const current = deps.ticketSecret?.current() ?? null
    if (current !== null && current.epoch !== epoch) {
      epoch = current.epoch
      contexts.clear()
    }
    return current?.secret ?? null
  }

  const all = settings.domains.map((options): Domain => {
    const serverNames = options.serverNames.map(normal)
    const name = serverNames[0]!
    const caCertificates = trustsCa(options) ? options.caPems.flatMap(certificatesOf) : []
    const policy = contextOptions(options.tlsPolicy, runtime)
    const byAlpn = options.authenticationType === 'DEFAULT'
    const factsOf = (wantsCertificate: boolean): AdmissionFacts => ({
      serverNames,
      authenticationType: options.authenticationType,
      applicationProtocol: options.applicationProtocol,
      endpointType: options.endpointType,
      wantsCertificate,
      trustMode: options.trustMode,
      caCertificates: wantsCertificate ? caCertificates : [],
      registry: options.registry,
      tlsPolicy: options.tlsPolicy,
      generation,
    })
    const sealingOf = (wantsCertificate: boolean, secret: Uint8Array | null): Sealing | null =>
      secret === null || options.sessionTickets === null
        ? null
        : { keys: ticketKeys(secret, factsOf(wantsCertificate)), lifetimeMs: options.sessionTickets.lifetimeMs }
    return {
      name,
      serverNames,
      enabled: options.enabled,
      admissions: rowsOf(options),
      byAlpn,
      endpointType: options.endpointType,
      backend: options.backend,
      registry: options.registry,
      trust: { mode: options.trustMode, caCertificates },
      tlsPolicy: options.tlsPolicy,
      missingSuites: policy.kind === 'usable' ? policy.missing : [],
      handshakeTimeoutMs: options.handshakeTimeoutMs,
      resumes: options.sessionTickets !== null && deps.ticketSecret !== undefined,
      context(wantsCertificate, full = false) {
        const tickets = !full && options.sessionTickets !== null && mayResume(options, wantsCertificate, runtime)
        const secret = tickets ? inForce() : null
        const key = `${name} ${options.tlsPolicy} ${generation} ${wantsCertificate} ${secret === null ? 'full' : 'tickets'}`
        const cached = contexts.get(key)
        if (cached) return cached
        const sealing = sealingOf(wantsCertificate, secret)
        const idContext = sessionIdContext(factsOf(wantsCertificate))
        const made = createSecureContext(secureContextOptions(options, idContext, wantsCertificate, runtime, sealing))
        contexts.set(key, made)
        return made
      },
    }
  })

  // A Map and not an object: "__proto__" and "constructor" are names a stranger may send.
  const byName = new Map(all.flatMap((domain) => domain.serverNames.map((name) => [name, domain] as const)))
  return {
    generation,
    all,
    warnings,
    find: (serverName) => byName.get(serverName) ?? null,
    retire: () => contexts.clear(),
  }
}
