import { isIP } from 'node:net'
import { z } from 'zod'
import { LIMIT_SHAPE, ownRules } from './limits.ts'
import { DURATION_UNITS, SIZE_UNITS, scaled } from './units.ts'

/**
 * The settings: one schema gives their types, defaults, checks, words of help and the JSON Schema for editors.
 *
 * - Durations are written with a unit and held in milliseconds, sizes are written with a unit and held in bytes.
 * - What is absent and has no default is `null`.
 * - What one value alone cannot show (names that must exist, combinations) is in `rules.ts`.
 * - A setting exists only when it works; every other key is refused.
 */

/** Timers of both runtimes hold 2³¹ − 1 ms; a longer one fires at once. */
const MAX_DURATION_MS = 576 * 3_600_000
/** The largest packet MQTT can express is a little under it (MQTT 5.0 §1.5.5). */
const MAX_PACKET_BYTES = 256 * 1_048_576

/** What was expected, whether the value is missing or wrong. Never repeats the value: it may be a secret. */
const expected = (what: string) => ({
  error: (issue: { readonly code?: string | undefined; readonly input?: unknown }) => {
    if (issue.code === 'unrecognized_keys') return undefined
    return issue.input === undefined ? `is missing, expected ${what}` : `expected ${what}`
  },
})

function duration(least: '0s' | '1ms' = '1ms') {
  const what = 'a duration with its unit (ms, s, m or h) such as "30s"'
  return z
    .string(expected(what))
    .regex(/^\d+(ms|s|m|h)$/, `expected ${what}`)
    .refine((text) => !(scaled(text, DURATION_UNITS) > MAX_DURATION_MS), 'expected a duration of at most "576h"')
    .refine((text) => !(scaled(text, DURATION_UNITS) < scaled(least, DURATION_UNITS)), `expected at least "${least}"`)
}
const toMs = (text: string): number => scaled(text, DURATION_UNITS)

const MAX_TICKET_MS = 24 * 60 * 60 * 1_000

/** Tickets, and the keys that open them, are worth stealing for as long as they last. */
function ticketTime() {
  return duration()
    .refine((text) => !(toMs(text) < 1_000), 'expected at least "1s"')
    .refine((text) => !(toMs(text) > MAX_TICKET_MS), 'expected at most "24h"')
}

function size(least: string) {
  const what = 'a size with its unit (B, KiB or MiB) such as "64KiB"'
  return z
    .string(expected(what))
    .regex(/^\d+(B|KiB|MiB)$/, `expected ${what}`)
    .refine((text) => !(scaled(text, SIZE_UNITS) > MAX_PACKET_BYTES), 'expected a size of at most "256MiB"')
    .refine((text) => !(scaled(text, SIZE_UNITS) < scaled(least, SIZE_UNITS)), `expected at least "${least}"`)
}
const toBytes = (text: string): number => scaled(text, SIZE_UNITS)

const orNull = <T>(value: T | undefined): T | null => value ?? null

export interface Address {
  /** An IP address without brackets, or for a broker a host name. */
  readonly host: string
  readonly port: number
}

function splitAddress(text: string): Address | null {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined || Number(port) > 65_535 || (bracketed !== undefined && isIP(bracketed) !== 6)) return null
  return { host, port: Number(port) }
}

function isBind(text: string): boolean {
  const address = splitAddress(text)
  return address !== null && isIP(address.host) !== 0
}

/** LDH labels (RFC 1123 §2.1), no trailing dot, no address: what a ClientHello may carry (RFC 6066 §3). */
export function isServerName(text: string): boolean {
  const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i
  return text.length <= 253 && isIP(text) === 0 && text.split('.').every((part) => label.test(part))
}

function isCidr(text: string): boolean {
  const [, address = '', prefix = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? []
  const family = isIP(address)
  return family !== 0 && Number(prefix) <= (family === 4 ? 32 : 128)
}

function isBrokerAddress(text: string): boolean {
  const address = splitAddress(text)
  return address !== null && address.port > 0 && (isIP(address.host) !== 0 || /^[\w.-]{1,253}$/.test(address.host))
}

export interface WebSocketAddress extends Address {
  /** Path and query. */
  readonly target: string
  readonly secure: boolean
}

const WEB_SOCKET_URL = 'a URL such as "wss://broker:8084/mqtt", without user name and fragment'

function splitUrl(text: string): WebSocketAddress | null {
  const [, scheme, authority = '', target] = /^(wss?):\/\/([^/?#@\\\s]+)([/?][\x21\x22\x24-\x7e]*)?$/.exec(text) ?? []
  if (scheme === undefined) return null
  const secure = scheme === 'wss'
  const port = /:\d+$/.test(authority) ? '' : `:${secure ? 443 : 80}`
  if (!isBrokerAddress(authority + port)) return null
  // A path that is not there is «/» (RFC 6455 §3).
  const slash = target === undefined || target.startsWith('?') ? '/' : ''
  return { ...toAddress(authority + port), target: `${slash}${target ?? ''}`, secure }
}

/** What a WebSocket upgrade says itself. */
const OURS = /^(?:host|connection|upgrade|content-length|transfer-encoding|sec-websocket-.*)$/i

const toServer = (text: string): WebSocketAddress =>
  splitUrl(text) ?? { host: text, port: 0, target: '/', secure: true }

/** For `.transform` after a check; where the check failed, the value is never seen. */
const toAddress = (text: string): Address => splitAddress(text) ?? { host: text, port: 0 }

const BIND = 'an address and port such as "[::]:8883" or "127.0.0.1:8443"'
const bind = () => z.string(expected(BIND)).refine(isBind, `expected ${BIND}`)

const path = (what: string) => z.string(expected(what)).min(1, `expected ${what}`)
const paths = (what: string) => z.array(path('a path'), expected(what)).min(1, `expected ${what}`)

const TEMPLATE_VARIABLES = /\$\{(?!(?:clientId|domain|principal\.[A-Za-z][\w.:-]*)\})/
const TEMPLATE_WORDS = 'only ${clientId}, ${domain}, ${principal.id} and ${principal.<attribute>} as variables'
const isTemplate = (text: string): boolean => !TEMPLATE_VARIABLES.test(text)
const template = () =>
  z
    .string(expected('a text, quoted if it looks like a number'))
    .min(1, 'expected a text that is not empty')
    .refine(isTemplate, `expected ${TEMPLATE_WORDS}`)

/** A text, or where it stands. `load.ts` puts the text in its place before the schema sees it. */
const secret = () =>
  z.union(
    [
      z.string(),
      z.strictObject({ file: z.string().describe('A file that holds it; a newline at its end is cut off.') }),
      z.strictObject({ env: z.string().describe('The environment variable that holds it.') }),
    ],
    expected('a text (quoted if it looks like a number), { file: … } or { env: … }'),
  )

const NAME = 'a name of letters, digits, "-" and "_"'
const name = () => z.string().regex(/^[A-Za-z0-9][\w-]{0,63}$/, `expected ${NAME}`)

const AUTHORIZER_NAME = 'a name of 1–128 letters, digits and _ = , @ -'
const authorizerName = () =>
  z.string(expected(AUTHORIZER_NAME)).regex(/^[\w=,@-]{1,128}$/, `expected ${AUTHORIZER_NAME}`)

const section = <S extends z.core.$ZodLooseShape>(shape: S, what = 'a section of settings') =>
  z.strictObject(shape, expected(what))

export const SERVICE_PORTS = [8883, 8443, 443] as const
export type ServicePort = (typeof SERVICE_PORTS)[number]

export const TLS_POLICY_NAMES = [
  'IoTSecurityPolicy_TLS13_1_3_2022_10',
  'IoTSecurityPolicy_TLS13_1_2_2022_10',
  'IoTSecurityPolicy_TLS12_1_2_2022_10',
  'IoTSecurityPolicy_TLS12_1_0_2016_01',
  'IoTSecurityPolicy_TLS12_1_0_2015_01',
  'IoTSecurityPolicy_TLS13_1_2_2022_01',
] as const

const oneOf = <const T extends readonly [string, ...string[]]>(values: T) =>
  z.enum(values, expected(values.length === 1 ? values[0] : `one of ${values.join(', ')}`))

const LISTENER = section(
  {
    bind: bind().transform(toAddress).describe('Address and port to listen on; "[::]" is IPv4 and IPv6.'),
    as: z
      .literal(SERVICE_PORTS, expected('8883, 8443 or 443'))
      .optional()
      .describe('The port whose rules apply: 8883, 8443 or 443. Required when the bound port is none of these.'),
    proxyProtocol: section({
      versions: z
        .array(z.literal([1, 2], expected('1 or 2')), expected('a list of 1 and 2'))
        .min(1, 'expected at least one of 1 and 2')
        .default([1, 2])
        .describe('Versions of the PROXY protocol that are understood.'),
      trustedSources: z
        .array(
          z.string(expected('a network such as 10.0.0.0/8')).refine(isCidr, 'expected a network such as 10.0.0.0/8'),
          expected('a list of networks such as [ 10.0.0.0/8 ]'),
        )
        .min(1, 'expected at least one network such as 10.0.0.0/8')
        .describe('Load balancers (networks). A header is required from these and refused from everybody else.'),
    })
      .optional()
      .transform(orNull)
      .describe('Set it when a load balancer in front sends the PROXY protocol header.'),
    helloTimeout: duration().default('5s').transform(toMs).describe('From accept to the whole ClientHello.'),
  },
  'a listener such as { bind: "[::]:8883" }',
).transform(({ as, ...listener }) => ({ ...listener, as: as ?? (listener.bind.port as ServicePort) }))

const CRL = section({
  files: paths('a list of at least one CRL file').describe('Revocation lists, PEM or DER, signed by a CA in `ca`.'),
  onExpired: oneOf(['keep', 'deny'])
    .default('deny')
    .describe('Past its nextUpdate: deny every device of that issuer, or keep using the list.'),
  onMissing: oneOf(['allow', 'deny'])
    .default('deny')
    .describe('No list for an issuer in the path: deny the device, or allow it.'),
})

const CALL_URL = 'an https:// URL without user and fragment (http:// only to this machine)'

/** Where a call may go; credentials belong to `headers`, where they can be secret. As for `url` of an authorizer. */
function isCallUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname, username, password, hash } = new URL(text)
  const local = /^(?:localhost|\[::1\]|127\.\d+\.\d+\.\d+)$/.test(hostname)
  return username + password + hash === '' && (protocol === 'https:' || (protocol === 'http:' && local))
}

const CERTIFICATE_CALLBACK = section(
  {
    url: z
      .string(expected(CALL_URL))
      .refine(isCallUrl, `expected ${CALL_URL}`)
      .describe('Where the certificate is posted; {"isAuthenticated": true} lets the device go on.'),
    ca: paths('a list of at least one PEM file')
      .optional()
      .transform(orNull)
      .describe("PEM files with the CAs of the endpoint. Absent: the runtime's own list."),
    headers: z
      .record(
        z.string().regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}$/, 'expected the name of an HTTP header'),
        // Not a string only where load.ts could not find the secret, which is an issue of its own.
        secret()
          .transform((value) => (typeof value === 'string' ? value : ''))
          .refine((value) => !/[^\t\x20-\x7e\x80-\xff]/.test(value), 'holds a character that a header may not have'),
        expected('headers such as { authorization: { env: AUTH } }'),
      )
      .default({})
      .describe("Sent with each call: the endpoint's own credentials, as a text, { file: … } or { env: … }."),
    timeout: duration()
      .default('5s')
      .refine((text) => !(scaled(text, DURATION_UNITS) > 5_000), 'expected at most "5s"')
      .transform(toMs)
      .describe('For one whole call.'),
  },
  'a certificate callback such as { url: "https://auth.internal/certificate" }',
)

const CLIENT_TRUST = section({
  mode: oneOf(['registry', 'ca', 'registry-or-ca', 'registry-and-ca'])
    .default('registry')
    .describe('What makes a device certificate trusted: an entry in the registry, a path to a CA, either or both.'),
  ca: z
    .array(path('a path'), expected('a list of PEM files'))
    .default([])
    .describe(
      'PEM files with the CAs that device certificates must lead to. Needed where `mode` says ca, and by `crl`.',
    ),
  crl: CRL.optional().transform(orNull).describe('Certificate revocation lists.'),
  policies: z
    .array(z.string(expected('the name of a policy')), expected('a list of names of policies'))
    .default([])
    .describe(
      'Policies of the registry for devices that it does not know: trusted by CA, or let in with BACKEND. None: no permission.',
    ),
  cutAtExpiry: z
    .boolean(expected('true or false'))
    .default(false)
    .describe('End live connections when their certificate expires.'),
  certificateCallback: CERTIFICATE_CALLBACK.optional()
    .transform(orNull)
    .describe('An HTTPS endpoint that is asked about every client certificate before anything else judges it.'),
})

const ARN = {
  partition: z.string().regex(/^[a-z0-9-]{1,32}$/, 'expected a partition such as aws'),
  region: z.string().regex(/^[a-z0-9-]{1,32}$/, 'expected a region such as us-east-1'),
  accountId: z
    .string(expected('an account id of 12 digits, quoted'))
    .regex(/^\d{12}$/, 'expected an account id of 12 digits, quoted'),
}
const ARN_HELP = {
  partition: 'Partition in ARNs.',
  region: 'Region in ARNs and in the scope of Signature Version 4.',
  accountId: 'Account id in ARNs.',
}
const SIGV4 = section({
  clockSkew: duration('0s')
    .default('5m')
    .transform(toMs)
    .describe('How far the clock of a device may be apart from ours.'),
  maxPresignAge: duration()
    .default('5m')
    .transform(toMs)
    .describe('How long a presigned URL counts at most, whatever its X-Amz-Expires says.'),
  singleEncodedPath: z
    .boolean(expected('true or false'))
    .default(false)
    .describe('Accept signatures of signers that percent-encode the path once instead of twice.'),
  signedToken: z
    .boolean(expected('true or false'))
    .default(false)
    .describe('Accept presigned URLs whose session token was signed too; AWS IoT Core does not.'),
})
  .prefault({})
  .describe('Signature Version 4, for WebSockets and HTTPS.')

/** Those a device may use on routes; TRACE and CONNECT are nobody's. */
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const

/** Headers that no setting can let through to a backend: ours, those that frame a message, those that prove who somebody is. */
const NEVER_FORWARDED =
  /^(?:connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|http2-settings|host|content-length|expect|authorization|cookie2?|forwarded|via|x-real-ip|x-original-.*|x-rewrite-.*|x-forwarded-.*|x-amz-.*|x-amzn-.*|x-client-.*|x-ssl-.*|ssl-.*|client-.*|x-brokergate-.*|sec-websocket-.*)$/

const ROUTE = section(
  {
    path: z
      .string(expected('a path such as "/things/*/shadow"'))
      .regex(
        /^(?:\/(?:\*|[\w.~!$&'()+,;=:@-]+))+$/,
        'expected a path such as "/things/*/shadow", * for a whole segment',
      )
      .refine((text) => !/\/\.\.?(?:\/|$)/.test(text), 'expected a path without . and ..')
      .describe('Path of the request; * stands for one segment. Segments are compared decoded.'),
    methods: z
      .array(oneOf(METHODS), expected('a list of methods such as [ GET, POST ]'))
      .min(1, 'expected at least one method')
      .describe('Methods that this route is for.'),
    backend: z.string(expected('the name of a backend')).describe('A backend of kind http, by its name.'),
    action: z
      .string(expected('an action such as "iot:GetThingShadow"'))
      .regex(/^[a-z][a-z0-9-]*:[A-Za-z]+$/, 'expected an action such as "iot:GetThingShadow"')
      .optional()
      .transform(orNull)
      .describe("What the device's policies must allow. This or `authorize: none`."),
    authorize: oneOf(['none'])
      .optional()
      .transform(orNull)
      .describe('none: whoever is known may. Who it is, is asked in any case.'),
    resource: z
      .string(expected('a resource such as "topic/${1}"'))
      .min(1, 'expected a text that is not empty')
      .refine(
        (text) => !/\$\{(?![1-9]\})/.test(text),
        'expected only ${1}, ${2}… as variables, one for each * of the path',
      )
      .optional()
      .transform(orNull)
      .describe(
        'On what, as the tail of an ARN; ${1} is what the first * stands for. Absent: the thing of a path with /things/*, and its shadow by ?name=.',
      ),
    headers: z
      .array(
        z
          .string(expected('the name of a header'))
          .regex(/^[A-Za-z0-9][A-Za-z0-9-]*$/, 'expected the name of a header, of letters, digits and hyphens')
          .transform((text) => text.toLowerCase())
          .refine((text) => !NEVER_FORWARDED.test(text), 'expected a header that is not reserved'),
        expected('a list of header names'),
      )
      .default([])
      .describe('Request headers that travel besides the usual ones (Accept, Content-Type and the like).'),
  },
  'a route such as { path: "/things/*/shadow", methods: [ GET ], backend: shadows, action: "iot:GetThingShadow" }',
)

const CLIENT_ID = section({
  bind: oneOf(['policy', 'thing', 'principal'])
    .default('policy')
    .describe(
      'policy: iot:Connect decides. thing: it must be the name of an attached thing. principal: the id of the principal.',
    ),
  prefix: z
    .string(expected('a text'))
    .regex(/^[\w./:@=-]{0,64}$/, 'expected at most 64 letters, digits and ._-/:@=')
    .default('')
    .describe('Put before client ids toward the broker, so that tenants on one broker cannot meet.'),
})

const PROFILE = oneOf(['open', 'aws-iot'])
const PROFILE_HELP =
  "open: the broker's own rules under safety ceilings. aws-iot: the numbers and refusals of AWS IoT Core."

const DOMAIN = section(
  {
    serverNames: z
      .array(
        z
          .string(expected('a host name such as iot.example.com'))
          .refine(
            isServerName,
            'expected a host name of letters, digits and hyphens, without wildcard, port or final dot',
          )
          .transform((text) => text.toLowerCase()),
        expected('a list of host names such as [ iot.example.com ]'),
      )
      .min(1, 'expected at least one host name')
      .describe('Exact host names that devices ask for (SNI). Each belongs to one domain only.'),
    status: oneOf(['enabled', 'disabled'])
      .default('enabled')
      .describe('A disabled domain refuses its devices, and stays configured.'),
    certificates: z
      .array(
        section(
          {
            cert: path('a PEM file').describe('PEM file: the server certificate, then its intermediates.'),
            key: path('a PEM file').describe('PEM file: its private key.'),
          },
          'a certificate such as { cert: server.pem, key: server.key }',
        ),
        expected('a list of one or two { cert: …, key: … }'),
      )
      .min(1, 'expected one or two { cert: …, key: … }')
      .max(2, 'expected one or two certificates (one RSA, one ECDSA)')
      .describe('One certificate, or two of different kinds (RSA and ECDSA).'),
    tlsPolicy: oneOf(TLS_POLICY_NAMES)
      .default('IoTSecurityPolicy_TLS13_1_2_2022_10')
      .describe('TLS versions and cipher suites, by the names that AWS IoT Core gives them.'),
    authenticationType: oneOf(['DEFAULT', 'AWS_X509', 'CUSTOM_AUTH', 'CUSTOM_AUTH_X509', 'AWS_SIGV4', 'BACKEND'])
      .default('DEFAULT')
      .describe(
        'DEFAULT: port and ALPN decide. AWS_X509: client certificates only. CUSTOM_AUTH: authorizers only. CUSTOM_AUTH_X509: both. AWS_SIGV4: signatures only. BACKEND: the broker checks CONNECT.',
      ),
    applicationProtocol: oneOf(['DEFAULT', 'SECURE_MQTT', 'MQTT_WSS', 'HTTPS'])
      .default('DEFAULT')
      .describe('DEFAULT with DEFAULT; else what is spoken: MQTT over TLS, MQTT over WebSocket, or HTTPS.'),
    endpointType: oneOf(['data', 'jobs'])
      .default('data')
      .describe('jobs: as the jobs endpoint of AWS IoT, which refuses the ALPN name x-amzn-http-ca.'),
    registry: name().optional().transform(orNull).describe('The registry, by its name under `registries`.'),
    clientTrust: CLIENT_TRUST.prefault({}).describe('Which device certificates are trusted.'),
    authorizers: z
      .array(authorizerName(), expected('a list of names of authorizers'))
      .default([])
      .describe('Authorizers of the registry that devices may name, with allowAuthorizerOverride.'),
    defaultAuthorizer: authorizerName()
      .optional()
      .transform(orNull)
      .describe('The authorizer of the registry for devices that name none, or whose choice does not count.'),
    allowAuthorizerOverride: z
      .boolean(expected('true or false'))
      .default(false)
      .describe('Whether a device may name one of `authorizers`. false: what it names is passed over.'),
    sigv4: SIGV4,
    handshakeTimeout: duration()
      .default('10s')
      .transform(toMs)
      .describe('From accept to the end of the TLS handshake.'),
    sessionTickets: section({
      enabled: z
        .boolean(expected('true or false'))
        .default(false)
        .describe('Whether devices may come back to a TLS session without a full handshake. They are judged as anew.'),
      lifetime: ticketTime().default('12h').transform(toMs).describe('How long a session may be taken up again.'),
    })
      .prefault({})
      .describe('TLS session resumption by tickets.'),
    backend: z.string(expected('the name of a backend')).describe('Where sessions go, by its name under `backends`.'),
    aws: section({
      partition: ARN.partition.optional().describe(ARN_HELP.partition),
      region: ARN.region.optional().describe(ARN_HELP.region),
      accountId: ARN.accountId.optional().describe(ARN_HELP.accountId),
    })
      .prefault({})
      .describe('Heads of ARNs for this domain, where they differ from `aws`.'),
    routes: z
      .array(ROUTE, expected('a list of routes'))
      .default([])
      .describe('Other HTTPS paths, forwarded to backends of kind http. The first that fits path and method counts.'),
    policy: oneOf(['enforce', 'report'])
      .default('enforce')
      .describe('report: what policies deny is decided, counted and logged, and passes all the same.'),
    denials: oneOf(['open', 'aws-iot', 'lenient'])
      .optional()
      .transform(orNull)
      .describe(
        'How a device sees that a policy denies. open: by a reason code, or the end of a connection that has none for it. aws-iot: also a denied 3.1.1 connect or subscription ends it. lenient: no connection is ended; what 3.1.1 and QoS 0 have no word for is dropped. Absent: as the profile.',
      ),
    clientId: CLIENT_ID.prefault({}).describe('Which client ids devices may use, and what the broker sees of them.'),
    limits: section({ profile: PROFILE.optional().transform(orNull).describe(PROFILE_HELP), ...LIMIT_SHAPE })
      .transform(({ profile, ...written }) => ({ profile, own: ownRules(written) }))
      .prefault({})
      .describe('Limits for this domain, where they differ from `limits`.'),
  },
  'a domain: serverNames, certificates, backend and more',
)

const IDENTITY = {
  username: template()
    .optional()
    .transform(orNull)
    .describe(`User name sent to the broker in place of the device's. A template: ${TEMPLATE_WORDS}.`),
  password: secret()
    // Not a string only where load.ts could not find the secret, which is an issue of its own.
    .transform((value) => (typeof value === 'string' ? value : ''))
    .refine(isTemplate, `expected ${TEMPLATE_WORDS}`)
    .optional()
    .transform(orNull)
    .describe("Password sent to the broker in place of the device's: a text, { file: … } or { env: … }."),
  clientId: template()
    .optional()
    .transform(orNull)
    .describe("Client id sent to the broker in place of the device's, as a template. Two devices must not share one."),
  keepAlive: z
    .union([z.literal('device'), z.literal('0'), z.literal(0)], expected('device or 0'))
    .default('device')
    .transform((value): 'device' | '0' => (value === 'device' ? 'device' : '0'))
    .describe("device: pass the device's keep alive on. 0: turn the broker's check off, ours goes on."),
}

const COUNT = 'a whole number such as 2'
const propertyName = () => z.string(expected('a name')).min(1, 'expected a name').max(256, 'expected a shorter name')

const PUBLISH = section({
  username: z
    .string(expected('a text, quoted if it looks like a number'))
    .min(1, 'expected a text that is not empty')
    .optional()
    .transform(orNull)
    .describe(
      'User name of our own connections to the broker. Absent: that of `identity`, which then has no variables.',
    ),
  password: secret()
    .transform((value) => (typeof value === 'string' ? value : ''))
    .optional()
    .transform(orNull)
    .describe(
      'Its password: a text, { file: … } or { env: … }. Absent: none, or that of `identity` with its user name.',
    ),
  connections: z
    .int(expected(COUNT))
    .min(1, 'expected a whole number from 1')
    .max(64, 'expected a whole number to 64')
    .default(2)
    .describe('Connections of one worker to the broker at most; the second is opened when the first is busy.'),
  timeout: duration()
    .default('10s')
    .transform(toMs)
    .describe("From a publish over HTTPS, read whole, to the broker's acknowledgement."),
  queue: z
    .int(expected(COUNT))
    .min(1, 'expected a whole number from 1')
    .max(100_000, 'expected a whole number to 100000')
    .default(1_000)
    .describe('Publishes of one worker that may wait; above it they are answered 503.'),
  principalProperty: propertyName()
    .optional()
    .transform(orNull)
    .describe('User property (MQTT 5) that names who published over HTTPS; devices cannot set it themselves.'),
  addressProperty: propertyName()
    .optional()
    .transform(orNull)
    .describe('User property (MQTT 5) that says from which address; devices cannot set it themselves.'),
})
  .prefault({})
  .describe('Our own connections to the broker, which carry publishes over HTTPS.')

const PROXY_PROTOCOL = oneOf(['v2'])
  .optional()
  .transform(orNull)
  .describe("Send a PROXY protocol header with the device's address first; the broker must expect it.")

/** What every kind of backend over several servers has. */
const REACH = {
  balance: oneOf(['leastconn', 'roundrobin'])
    .default('leastconn')
    .describe('leastconn: the server with the fewest sessions of this process. roundrobin: one after the other.'),
  connectTimeout: duration()
    .default('5s')
    .transform(toMs)
    .describe('To connect to one server, with TLS where it is used.'),
  identity: section({ ...IDENTITY, proxyProtocol: PROXY_PROTOCOL })
    .prefault({})
    .describe("What the broker is told in place of the device's own."),
  publish: PUBLISH,
}

const ADDRESSES = {
  servers: z
    .array(
      section(
        {
          address: z
            .string(expected('a host and port such as "broker:1883"'))
            .refine(isBrokerAddress, 'expected a host and port such as "broker:1883"')
            .transform(toAddress)
            .describe('Host (name or IP address) and port of the broker.'),
        },
        'a server such as { address: "broker:1883" }',
      ),
      expected('a list of servers such as [ { address: "broker:1883" } ]'),
    )
    .min(1, 'expected at least one server')
    .describe('The servers of this backend, which must be one broker or one cluster.'),
}

const URLS = {
  servers: z
    .array(
      section(
        {
          url: z
            .string(expected(WEB_SOCKET_URL))
            .refine((text) => splitUrl(text) !== null, `expected ${WEB_SOCKET_URL}`)
            .transform(toServer)
            .describe('Where the broker speaks MQTT over WebSocket; wss: is TLS. Its query is never logged.'),
        },
        'a server such as { url: "wss://broker:8084/mqtt" }',
      ),
      expected('a list of servers such as [ { url: "wss://broker:8084/mqtt" } ]'),
    )
    .min(1, 'expected at least one server')
    .describe('The servers of this backend, which must be one broker or one cluster.'),
  headers: z
    .record(
      z
        .string()
        .regex(/^[\w!#$%&'*+.^`|~-]{1,128}$/, 'expected the name of an HTTP header')
        .refine((text) => !OURS.test(text), 'expected a header that is not part of the upgrade itself'),
      secret()
        // Not a string only where load.ts could not find the secret, which is an issue of its own.
        .transform((value) => (typeof value === 'string' ? value : ''))
        .refine((text) => /^[\t\x20-\x7e]*$/.test(text), 'expected the value of an HTTP header, in ASCII'),
      expected('headers such as { authorization: { env: BROKER_TOKEN } }'),
    )
    .default({})
    .describe(
      'Headers of the upgrade, for a broker or proxy that asks for them: a text, { file: … } or { env: … } each.',
    ),
}

const BROKER_TLS = {
  ca: paths('a list of at least one PEM file')
    .optional()
    .transform(orNull)
    .describe("PEM files with the CAs of the broker's certificate. Absent: the runtime's own list."),
  serverName: z
    .string(expected('a host name'))
    .refine(isServerName, 'expected a host name')
    .optional()
    .transform(orNull)
    .describe("Name to ask for and to verify. Absent: the host of the server's address."),
  cert: path('a PEM file').optional().transform(orNull).describe('PEM file: our client certificate, with `key`.'),
  key: path('a PEM file').optional().transform(orNull).describe('PEM file: its private key.'),
}

const HTTP_URL = 'a URL such as "http://shadows:8080", without user name, query and fragment'

const isHttpUrl = (text: string): boolean =>
  /^https?:\/\/[^/?#@\\\s]+(?:\/[\w.~!$&'()*+,;=:@/-]*)?$/.test(text) && URL.canParse(text)

const BACKEND = z.discriminatedUnion(
  'kind',
  [
    section({ kind: z.literal('tcp').describe('An MQTT broker over plain TCP.'), ...ADDRESSES, ...REACH }),
    section({
      kind: z.literal('tls').describe('An MQTT broker over TLS; its certificate is always verified.'),
      ...ADDRESSES,
      ...REACH,
      ...BROKER_TLS,
    }),
    section({
      kind: z.literal('ws').describe('An MQTT broker over WebSocket; with wss: its certificate is always verified.'),
      ...URLS,
      ...REACH,
      ...BROKER_TLS,
    }),
    section({
      kind: z
        .literal('embedded')
        .describe('A small broker inside this process: for trying things, not for production.'),
      identity: section(IDENTITY).prefault({}).describe("What the broker is told in place of the device's own."),
      publish: PUBLISH,
    }),
    section({
      kind: z.literal('http').describe('An HTTP server for `routes`; with https: its certificate is always verified.'),
      url: z
        .string(expected(HTTP_URL))
        .refine(isHttpUrl, `expected ${HTTP_URL}`)
        .describe('Where it is; a path is put before those of the requests.'),
      ca: BROKER_TLS.ca,
      cert: BROKER_TLS.cert,
      key: BROKER_TLS.key,
      timeout: duration()
        .default('30s')
        .transform(toMs)
        .describe('Until the head of its answer, and then between two pieces of the body.'),
    }),
  ],
  expected('a backend with kind tcp, tls, ws, embedded or http'),
)

const HTTP_LIMITS = section({
  headerTimeout: duration()
    .default('10s')
    .transform(toMs)
    .describe('For the whole head of a request: from the end of the handshake, later from its first byte.'),
  bodyTimeout: duration().default('30s').transform(toMs).describe('For the whole body of a request.'),
  idleTimeout: duration()
    .default('60s')
    .transform(toMs)
    .describe('From an answer to the first byte of the next request on the connection.'),
  headerSize: size('1KiB').default('16KiB').transform(toBytes).describe('Request line and header fields together.'),
  headers: z
    .int(expected('a whole number such as 100'))
    .min(8, 'expected a whole number from 8')
    .max(1_000, 'expected a whole number up to 1000')
    .default(100)
    .describe('Most header fields of a request.'),
  bodySize: size('0B')
    .default('1MiB')
    .transform(toBytes)
    .describe('Largest body that is forwarded. What is published or signed ends at 128KiB in any case.'),
})

const EVENT_SINK = z.discriminatedUnion(
  'kind',
  [
    section({
      kind: z.literal('broker').describe('As JSON on reserved topics of a broker, at QoS 1.'),
      backend: z.string(expected('the name of a backend')).describe('Which, by its name under `backends`.'),
      topicPrefix: z
        .string(expected('a topic such as $aws/events'))
        .regex(/^[^+#\0]{1,128}$/, 'expected a topic of at most 128 characters, without + and #')
        .refine((text) => !text.endsWith('/'), 'expected a topic without / at its end')
        .default('$aws/events')
        .describe('Topics begin with it.'),
    }),
    section({ kind: z.literal('log').describe('As lines of the log.') }),
    section({
      kind: z.literal('module').describe('To an ES module of your own.'),
      path: path('an ES module').describe('Its default export makes a sink from `options`.'),
      options: z.record(z.string(), z.unknown()).default({}).describe('For the module.'),
    }),
  ],
  expected('an event sink with kind broker, log or module'),
)

export const SETTINGS = section({
  aws: section({
    partition: ARN.partition.default('aws').describe(ARN_HELP.partition),
    region: ARN.region.default('us-east-1').describe(ARN_HELP.region),
    accountId: ARN.accountId.default('000000000000').describe(ARN_HELP.accountId),
  })
    .prefault({})
    .describe('Heads of the ARNs that policies are compared with.'),
  include: z
    .union([z.string(), z.array(z.string())], expected('a path or a list of paths'))
    .optional()
    .describe('More files, or folders of *.yaml files. Lists are joined; the same single setting twice is refused.'),
  listeners: z
    .array(LISTENER, expected('a list of listeners such as [ { bind: "[::]:8883" } ]'))
    .min(1, 'expected at least one listener such as { bind: "[::]:8883" }')
    .describe('Where devices connect.'),
  domains: z
    .array(DOMAIN, expected('a list of domains, each with serverNames, certificates and backend'))
    .min(1, 'expected at least one domain with serverNames, certificates and backend')
    .describe('The server names that are served, and how.'),
  backends: z
    .record(name(), BACKEND, expected('at least one backend such as main: { kind: tcp, servers: [ … ] }'))
    .describe('Brokers, by a name of your choice.'),
  registries: z
    .record(
      name(),
      section(
        {
          path: path('a folder').describe('A folder; every *.yaml in it is read, and followed when it changes.'),
          state: path('a folder')
            .optional()
            .transform(orNull)
            .describe(
              'A folder of this program for what it learns: registrations, activations, revocations. None: it learns nothing.',
            ),
        },
        'a registry such as { path: registry/ }',
      ),
      expected('registries by name such as main: { path: registry/ }'),
    )
    .default({})
    .describe('Registries of devices and their certificates, by a name of your choice.'),
  limits: section({
    connectTimeout: duration()
      .default('10s')
      .transform(toMs)
      .describe('From the end of the handshake to the whole CONNECT packet.'),
    connectSize: size('128B').default('64KiB').transform(toBytes).describe('Largest CONNECT packet.'),
    webSocketMessageSize: size('128B')
      .default('16MiB')
      .transform(toBytes)
      .describe('Largest WebSocket message, either way; it is held whole, a packet may be in several.'),
    maxConnections: z
      .int(expected('a whole number such as 50000'))
      .min(1, 'expected a whole number from 1')
      .optional()
      .transform(orNull)
      .describe('Most connections that one worker holds. Absent: as many as its file descriptors allow.'),
    halfCloseTimeout: duration()
      .default('30s')
      .transform(toMs)
      .describe('How long the other direction may go on when one side has ended.'),
    http: HTTP_LIMITS.prefault({}).describe('Ceilings of HTTP connections.'),
    profile: PROFILE.default('open').describe(PROFILE_HELP),
    ...LIMIT_SHAPE,
  })
    .transform(
      ({
        connectTimeout,
        connectSize,
        webSocketMessageSize,
        maxConnections,
        halfCloseTimeout,
        http,
        profile,
        ...written
      }) => ({
        connectTimeout,
        connectSize,
        webSocketMessageSize,
        maxConnections,
        halfCloseTimeout,
        http,
        profile,
        own: ownRules(written),
      }),
    )
    .prefault({})
    .describe('Ceilings that protect this process, and what sessions may ask for.'),
  events: z
    .array(EVENT_SINK, expected('a list such as [ { kind: broker, backend: main }, { kind: log } ]'))
    .default([])
    .describe('Who is told when devices come, go, subscribe or register themselves. None: nobody.'),
  metrics: section({
    bind: bind()
      .default('127.0.0.1:9883')
      .transform(toAddress)
      .describe('Address and port of /metrics, /healthz and /readyz.'),
  })
    .prefault({})
    .describe('Read-only HTTP: metrics and health.'),
  admin: section({
    socket: path('a path for a unix socket')
      .default('var/admin.sock')
      .describe('Unix socket of the administration, made with mode 0600.'),
  })
    .prefault({})
    .describe('Administration of the running process.'),
  workers: z
    .union([z.literal('auto'), z.int().min(1).max(1_024)], expected('auto or a whole number from 1 to 1024'))
    .default('auto')
    .describe('Worker processes; auto is one per core.'),
  transport: z
    .enum(['auto', 'portable'])
    .default('auto')
    .describe(
      "What carries MQTT: auto is the runtime's own sockets where it is Bun, portable is those of node:net and node:tls.",
    ),
  ticketKeys: section({
    rotation: ticketTime()
      .default('12h')
      .transform(toMs)
      .describe('How long keys are used; sessions end with the keys of their tickets.'),
  })
    .prefault({})
    .describe('Keys of session tickets, made at the start, shared by the workers and kept in memory.'),
  drain: section({
    grace: duration('0s').default('30s').transform(toMs).describe('How long sessions may go on after the stop signal.'),
  })
    .prefault({})
    .describe('The way a process ends.'),
  log: section({
    level: oneOf(['debug', 'info', 'warn', 'error']).default('info').describe('Least severity that is written.'),
    format: oneOf(['auto', 'json', 'pretty'])
      .default('auto')
      .describe('auto: pretty on a terminal, else one JSON object per line.'),
  })
    .prefault({})
    .describe('The log, on standard output.'),
})

type DeepReadonly<T> = T extends readonly (infer E)[]
  ? readonly DeepReadonly<E>[]
  : T extends object
    ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
    : T

/** Durations are milliseconds, sizes are bytes, paths are absolute, secrets are read, every default is filled in. */
export type Settings = DeepReadonly<Omit<z.output<typeof SETTINGS>, 'include'>>
export type ListenerSettings = Settings['listeners'][number]
export type DomainSettings = Settings['domains'][number]
export type ClientTrustSettings = DomainSettings['clientTrust']
export type EventSinkSettings = Settings['events'][number]
export type BackendSettings = DeepReadonly<z.output<typeof BACKEND>>

/**
 * Settings that are paths, `*` standing for a name or an index. `file` and `folder` must exist when the settings are
 * loaded; `new` is made by this program.
 */
export const PATHS: readonly { readonly setting: string; readonly must: 'file' | 'folder' | 'new' }[] = [
  { setting: 'domains.*.certificates.*.cert', must: 'file' },
  { setting: 'domains.*.certificates.*.key', must: 'file' },
  { setting: 'domains.*.clientTrust.ca.*', must: 'file' },
  { setting: 'domains.*.clientTrust.crl.files.*', must: 'file' },
  { setting: 'domains.*.clientTrust.certificateCallback.ca.*', must: 'file' },
  { setting: 'backends.*.ca.*', must: 'file' },
  { setting: 'backends.*.cert', must: 'file' },
  { setting: 'backends.*.key', must: 'file' },
  { setting: 'events.*.path', must: 'file' },
  { setting: 'registries.*.path', must: 'folder' },
  { setting: 'registries.*.state', must: 'new' },
  { setting: 'admin.socket', must: 'new' },
]

/** Settings that may be written `{ file: … }` or `{ env: … }`. */
export const SECRETS: readonly string[] = [
  'backends.*.identity.password',
  'backends.*.publish.password',
  'backends.*.headers.*',
  'domains.*.clientTrust.certificateCallback.headers.*',
]
