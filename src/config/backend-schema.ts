import { z } from 'zod'
import {
  type Address,
  duration,
  expected,
  isBrokerAddress,
  isServerName,
  isTemplate,
  oneOf,
  orNull,
  path,
  paths,
  secret,
  section,
  size,
  TEMPLATE_WORDS,
  template,
  toAddress,
  toBytes,
  toMs,
} from './forms.ts'

// Where sessions, publishes and forwarded requests go.

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

const OUTAGE_SHIELD = section(
  {
    hold: duration()
      .default('30s')
      .transform(toMs)
      .refine((ms) => ms >= 1_000 && ms <= 600_000, 'expected 1s to 10m')
      .describe("How long a device's connection is held when its broker has gone, until the broker has taken it back."),
    buffer: size('64KiB')
      .default('256KiB')
      .transform(toBytes)
      .refine((bytes) => bytes <= 16_777_216, 'expected 16MiB at most')
      .describe(
        'Per session: publishes that the broker has not acknowledged yet, and the same again of what a device says while it is held.',
      ),
    resumesPerSecond: z
      .int(expected(COUNT))
      .min(1, 'expected a whole number from 1')
      .max(10_000, 'expected a whole number to 10000')
      .default(100)
      .describe('Sessions that one worker brings back to the broker per second.'),
  },
  'a section such as { hold: 30s }',
)
  .optional()
  .transform(orNull)
  .describe(
    'Sessions outlive a broker that goes and comes back, where nothing is lost by it. Absent: they end with its connection.',
  )

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
  outageShield: OUTAGE_SHIELD,
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

export const BACKEND = z.discriminatedUnion(
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
