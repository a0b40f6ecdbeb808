import { z } from 'zod'
import {
  authorizerName,
  duration,
  expected,
  isServerName,
  name,
  oneOf,
  orNull,
  path,
  paths,
  secret,
  section,
  ticketTime,
  toMs,
} from './forms.ts'
import { SESSIONS } from './governor-schema.ts'
import { LIMIT_SHAPE, ownRules } from './limits.ts'
import { DURATION_UNITS, scaled } from './units.ts'

// What AWS calls a domain configuration: one server name's settings.

export const TLS_POLICY_NAMES = [
  'IoTSecurityPolicy_TLS13_1_3_2022_10',
  'IoTSecurityPolicy_TLS13_1_2_2022_10',
  'IoTSecurityPolicy_TLS12_1_2_2022_10',
  'IoTSecurityPolicy_TLS12_1_0_2016_01',
  'IoTSecurityPolicy_TLS12_1_0_2015_01',
  'IoTSecurityPolicy_TLS13_1_2_2022_01',
] as const

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

export const ARN = {
  partition: z.string().regex(/^[a-z0-9-]{1,32}$/, 'expected a partition such as aws'),
  region: z.string().regex(/^[a-z0-9-]{1,32}$/, 'expected a region such as us-east-1'),
  accountId: z
    .string(expected('an account id of 12 digits, quoted'))
    .regex(/^\d{12}$/, 'expected an account id of 12 digits, quoted'),
}
export const ARN_HELP = {
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

export const PROFILE = oneOf(['open', 'aws-iot'])
export const PROFILE_HELP =
  "open: the broker's own rules under safety ceilings. aws-iot: the numbers and refusals of AWS IoT Core."

export const DOMAIN = section(
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
    sessions: SESSIONS,
    limits: section({ profile: PROFILE.optional().transform(orNull).describe(PROFILE_HELP), ...LIMIT_SHAPE })
      .transform(({ profile, ...written }) => ({ profile, own: ownRules(written) }))
      .prefault({})
      .describe('Limits for this domain, where they differ from `limits`.'),
  },
  'a domain: serverNames, certificates, backend and more',
)
