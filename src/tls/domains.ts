import type { X509Certificate } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import { LRUCache } from 'lru-cache'
import type { TicketSecret } from '../store/ticket-secret.ts'
import type { Admission, EndpointType } from './admission.ts'
import { checkDomains } from './domain-checks.ts'
import {
  certificatesOf,
  type DomainsOptions,
  mayResume,
  normal,
  rowsOf,
  type Sealing,
  secureContextOptions,
  type TrustMode,
  trustsCa,
} from './domain-options.ts'
import { contextOptions, TLS_RUNTIME, type TlsRuntime } from './policies.ts'
import { type AdmissionFacts, sessionIdContext, ticketKeys } from './tickets.ts'

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

export interface DomainsDeps {
  /** Milliseconds since 1970; `Date.now` when absent. */
  readonly now?: () => number
  readonly runtime?: TlsRuntime
  /** What ticket keys are made of; absent: no domain has tickets. */
  readonly ticketSecret?: TicketSecret
  /** Contexts held at once, over all domains. 14 KB each on Bun, 49 KB on Node. */
  readonly maxContexts?: number
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
