// Sessions of TLS that are made at one place and taken to others by a real client, and what is then said of the device.
import { type X509Options, x509 } from '../../src/auth/x509.ts'
import { createCa, type Issued, issueDevice } from '../../src/cli/pki.ts'
import type { SecuredConnection } from '../../src/connection.ts'
import { type CertificateStatus, createRegistry } from '../../src/registry/registry.ts'
import { RotatingSecret } from '../../src/store/ticket-secret.ts'
import type { DomainOptions } from '../../src/tls/domain-options.ts'
import { createDomains } from '../../src/tls/domains.ts'
import type { Secured } from '../../src/tls/handshake.ts'
import { sClient, tempFiles } from '../support/openssl.ts'
import { domainOptions, listen } from './server.ts'

export const fleet = createCa({ commonName: 'fleet' })
export const line = createCa({ commonName: 'line 1', issuer: fleet })
export const device = issueDevice(line, { commonName: 'device-1' })

export const withTickets = (over: Partial<DomainOptions> = {}): DomainOptions =>
  domainOptions({ sessionTickets: { lifetimeMs: 3_600_000 }, ...over })

export const CA_MODE = { trustMode: 'ca', caPems: [fleet.certPem] } as const

export interface Process {
  readonly secret: RotatingSecret
  readonly domains: readonly DomainOptions[]
  readonly generation: number
}

/** One process with domains a.example and b.example that differ in nothing but their names, unless said. */
export function processOf({ secret, domains, generation }: Partial<Process> = {}) {
  const made = createDomains(
    {
      generation: generation ?? 1,
      domains: domains ?? [withTickets(CA_MODE), withTickets({ ...CA_MODE, serverNames: ['b.example'] })],
    },
    { ticketSecret: secret ?? new RotatingSecret({ maxAgeMs: 3_600_000 }) },
  )
  return (name: string, requestCert = true, full = false): Side => ({
    requestCert,
    name,
    context: () => made.find(name)!.context(requestCert, full),
  })
}

export interface Side {
  readonly name: string
  readonly requestCert: boolean
  readonly context: () => ReturnType<ReturnType<typeof createDomains>['all'][number]['context']>
}

export interface Visit {
  readonly secured: Secured
  readonly output: string
}

/**
 * The device makes a session at the first side and takes it to all others. Both ends must agree on whether a session was
 * resumed, and the client asks for the same one each time.
 */
export async function visit(
  version: string,
  first: Side,
  others: readonly (Side & { readonly before?: () => void })[],
  { present = device as Issued | null, args = [] as readonly string[] } = {},
): Promise<readonly [Visit, ...Visit[]]> {
  const files = tempFiles({
    cert: present?.certPem ?? '',
    chain: present?.chainPem ?? '',
    key: present?.keyPem ?? '',
    session: '',
  })
  const { paths } = files
  let side = first
  const server = await listen({
    deadlineMs: 20_000,
    get context() {
      return side.context()
    },
    get requestCert() {
      return side.requestCert
    },
  })
  const shown = present === null ? [] : ['-cert', paths.cert!, '-key', paths.key!, '-cert_chain', paths.chain!]
  const go = async (more: readonly string[]): Promise<Visit> => {
    const { output } = await sClient({
      port: server.port,
      args: [`-tls${version}`, '-servername', side.name, ...shown, ...args, ...more],
      say: { after: /UP\n/, text: 'Q\n' },
      deadlineMs: 30_000,
    })
    if (!/UP\n/.test(output)) throw new Error(output)
    const end = await server.next()
    if (end instanceof Error) throw end
    if (end.resumed !== /Reused, TLSv1/.test(output)) throw new Error(`the ends do not agree:\n${output}`)
    return { secured: end, output }
  }
  try {
    const visits: [Visit, ...Visit[]] = [await go(['-sess_out', paths.session!])]
    for (const other of others) {
      other.before?.()
      side = other
      visits.push(await go(['-sess_in', paths.session!]))
    }
    return visits
  } finally {
    await server.close()
    files.remove()
  }
}

// The authenticator of this kind looks at nothing else.
const NO_CONNECTION = {} as SecuredConnection

/** What the identity stage says of it, with a registry that has the device under this status. */
export async function judged({ secured }: Visit, over: Partial<X509Options> = {}, status?: CertificateStatus) {
  const registry = createRegistry(
    status === undefined
      ? []
      : [
          {
            fingerprint: device.cert.fingerprint256.replaceAll(':', '').toLowerCase(),
            status,
            der: device.cert.raw,
            policies: [],
            things: [],
            exclusive: false,
          },
        ],
  )
  const authenticator = x509({
    mode: 'ca',
    registry: () => registry,
    policies: [],
    hasCa: true,
    caCertificates: [fleet.cert],
    revocation: () => null,
    onExpired: 'deny',
    onMissing: 'deny',
    ...over,
  })
  const outcome = await authenticator.authenticate(
    { kind: 'x509', peer: secured.peer },
    NO_CONNECTION,
    new AbortController().signal,
  )
  return outcome.kind === 'denied' ? outcome.code : outcome.principal.attributes.commonName
}

export const fingerprints = ({ secured }: Visit) => secured.peer?.chain.map((each) => each.fingerprint256)
