import type { AuthMethod } from '../auth/authenticator.ts'
import type { FailureCode } from '../errors.ts'

export type Protocol = 'mqtt' | 'wss' | 'https'

/** One way in: on this port, with this ALPN name, this protocol and this kind of proof. */
export interface Admission {
  /** The row's letter in the wire specification §1.1, or `authenticationType/applicationProtocol` of an explicit domain. */
  readonly mode: string
  readonly port: number
  /** The name that selects the row; null: no name is needed. */
  readonly alpn: string | null
  readonly protocol: Protocol
  readonly auth: AuthMethod
}

/**
 * Every way in of a `DEFAULT` domain, as published under "Protocols, port mappings, and authentication" in the AWS
 * IoT Core developer guide. Devices in the field are wired to these numbers: a row is only ever added. Named rows
 * stand in the order in which the server prefers their ALPN names.
 */
// biome-ignore format: a table is read down its columns
export const ADMISSIONS: readonly Admission[] = [
  { mode: 'D', port: 8883, alpn: null,             protocol: 'mqtt',  auth: 'x509'   },
  { mode: 'H', port: 8443, alpn: null,             protocol: 'https', auth: 'x509'   },
  { mode: 'C', port: 443,  alpn: 'x-amzn-mqtt-ca', protocol: 'mqtt',  auth: 'x509'   },
  { mode: 'G', port: 443,  alpn: 'x-amzn-http-ca', protocol: 'https', auth: 'x509'   },
  { mode: 'E', port: 443,  alpn: 'mqtt',           protocol: 'mqtt',  auth: 'custom' },
  { mode: 'A', port: 443,  alpn: null,             protocol: 'wss',   auth: 'sigv4'  },
  { mode: 'B', port: 443,  alpn: null,             protocol: 'wss',   auth: 'custom' },
  { mode: 'F', port: 443,  alpn: null,             protocol: 'https', auth: 'sigv4'  },
  { mode: 'I', port: 443,  alpn: null,             protocol: 'https', auth: 'custom' },
]

export type AuthenticationType = 'AWS_X509' | 'CUSTOM_AUTH' | 'CUSTOM_AUTH_X509' | 'AWS_SIGV4' | 'DEFAULT' | 'BACKEND'
export type ApplicationProtocol = 'SECURE_MQTT' | 'MQTT_WSS' | 'HTTPS' | 'DEFAULT'

/**
 * Which pairs a domain may ask for (wire specification §1.2); every other pair is refused at load. `BACKEND` is ours:
 * the broker behind judges the credentials of CONNECT.
 */
// biome-ignore format: a table is read down its columns
export const COMBINATIONS: Readonly<Record<AuthenticationType, readonly ApplicationProtocol[]>> = {
  AWS_X509:         ['SECURE_MQTT',             'HTTPS'           ],
  CUSTOM_AUTH_X509: ['SECURE_MQTT',             'HTTPS'           ],
  AWS_SIGV4:        [               'MQTT_WSS', 'HTTPS'           ],
  CUSTOM_AUTH:      ['SECURE_MQTT', 'MQTT_WSS', 'HTTPS'           ],
  DEFAULT:          [                                    'DEFAULT'],
  BACKEND:          ['SECURE_MQTT'                                ],
}

export type EndpointType = 'data' | 'jobs'

/** ALPN names that an endpoint of this type does not answer on 443 (wire specification §1.1, stated exclusions). */
const EXCLUDED: Readonly<Record<EndpointType, readonly string[]>> = { data: [], jobs: ['x-amzn-http-ca'] }

type Explicit<T> = Exclude<T, 'DEFAULT'>

// biome-ignore format: a table is read down its columns
const METHODS: Readonly<Record<Explicit<AuthenticationType>, AuthMethod>> = {
  AWS_X509:         'x509',
  CUSTOM_AUTH_X509: 'custom-x509',
  AWS_SIGV4:        'sigv4',
  CUSTOM_AUTH:      'custom',
  BACKEND:          'backend',
}

/** Where an explicit domain is reached. */
// biome-ignore format: a table is read down its columns
const PORTS: Readonly<Record<Explicit<ApplicationProtocol>, { readonly protocol: Protocol; readonly ports: readonly number[] }>> = {
  SECURE_MQTT: { protocol: 'mqtt',  ports: [8883, 443] },
  HTTPS:       { protocol: 'https', ports: [8443, 443] },
  MQTT_WSS:    { protocol: 'wss',   ports: [443]       },
}

/** Names that select nothing but are answered where the port's rows need no name, in the server's order. */
const ECHOED_BY_PORT: Readonly<Record<number, readonly string[]>> = {
  8883: ['x-amzn-mqtt-ca'],
  8443: ['x-amzn-http-ca', 'http/1.1'],
  443: ['http/1.1'],
}

/** The same for an explicit domain, whose protocol is fixed and whose clients keep the names they were built with. */
const ECHOED_BY_PROTOCOL: Readonly<Record<Protocol, readonly string[]>> = {
  mqtt: ['x-amzn-mqtt-ca', 'mqtt'],
  https: ['x-amzn-http-ca', 'http/1.1'],
  wss: ['http/1.1'],
}

/** RFC 7301 §3.2 is held to here: an offer without a known name is refused. Other ports have one way in, whatever is offered. */
const STRICT_PORT = 443

/** The rows of a domain that fixes its own authentication and protocol; none when the pair is not a combination. */
export function explicitAdmissions(
  authenticationType: AuthenticationType,
  applicationProtocol: ApplicationProtocol,
): readonly Admission[] {
  if (authenticationType === 'DEFAULT' || applicationProtocol === 'DEFAULT') return []
  if (!COMBINATIONS[authenticationType].includes(applicationProtocol)) return []
  const { protocol, ports } = PORTS[applicationProtocol]
  const mode = `${authenticationType}/${applicationProtocol}`
  return ports.map((port) => ({ mode, port, alpn: null, protocol, auth: METHODS[authenticationType] }))
}

/** What `admit` needs to know of a domain. */
export interface Admitting {
  readonly endpointType: EndpointType
  readonly admissions: readonly Admission[]
  readonly byAlpn: boolean
}

export type Admitted =
  | {
      readonly kind: 'admitted'
      /** At least one; several only where the first HTTP request has to decide (A, B, F, I). */
      readonly admissions: readonly Admission[]
      /** The one name to select, always one of those offered; null answers without the extension. */
      readonly alpn: string | null
    }
  | { readonly kind: 'refused'; readonly code: Extract<FailureCode, 'ERR_ALPN_UNSUPPORTED' | 'ERR_PORT_UNSERVED'> }

/** The rows a ClientHello leaves open on this port of this domain. Wire specification §1.2. */
export function admit(domain: Admitting, port: number, offered: readonly string[]): Admitted {
  const rows = domain.admissions.filter((row) => row.port === port)
  const first = rows[0]
  if (!first) return { kind: 'refused', code: 'ERR_PORT_UNSERVED' }

  const excluded = port === STRICT_PORT ? EXCLUDED[domain.endpointType] : []
  const known = offered.filter((name) => !excluded.includes(name))
  const named = rows.find((row) => row.alpn !== null && known.includes(row.alpn))
  if (named) {
    return { kind: 'admitted', admissions: rows.filter((row) => row.alpn === named.alpn), alpn: named.alpn }
  }

  const echoed = domain.byAlpn ? (ECHOED_BY_PORT[port] ?? []) : ECHOED_BY_PROTOCOL[first.protocol]
  const alpn = echoed.find((name) => known.includes(name)) ?? null
  const open = rows.filter((row) => row.alpn === null)
  const unknown = offered.length > 0 && alpn === null
  if (open.length === 0 || (unknown && port === STRICT_PORT)) return { kind: 'refused', code: 'ERR_ALPN_UNSUPPORTED' }
  return { kind: 'admitted', admissions: open, alpn }
}

/** Whether the server must ask for a client certificate in this handshake. */
export function wantsCertificate(admissions: readonly Admission[]): boolean {
  return admissions.some((row) => row.auth === 'x509' || row.auth === 'custom-x509')
}
