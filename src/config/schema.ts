import { z } from 'zod'
import { BACKEND } from './backend-schema.ts'
import { ARN, ARN_HELP, DOMAIN, PROFILE, PROFILE_HELP } from './domain-schema.ts'
import { DRAIN } from './drain-schema.ts'
import {
  bind,
  duration,
  expected,
  isCidr,
  name,
  oneOf,
  orNull,
  path,
  section,
  size,
  ticketTime,
  toAddress,
  toBytes,
  toMs,
} from './forms.ts'
import { GOVERNOR, SHEDDING } from './governor-schema.ts'
import { LIMIT_SHAPE, ownRules } from './limits.ts'

/**
 * The settings: one schema gives their types, defaults, checks, words of help and the JSON Schema for editors.
 *
 * - Durations are written with a unit and held in milliseconds, sizes are written with a unit and held in bytes.
 * - What is absent and has no default is `null`.
 * - What one value alone cannot show (names that must exist, combinations) is in `rules.ts`.
 * - A setting exists only when it works; every other key is refused.
 */

export const SERVICE_PORTS = [8883, 8443, 443] as const
export type ServicePort = (typeof SERVICE_PORTS)[number]

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
      "What carries MQTT: auto is the runtime's own sockets where it is Bun, with less CPU time and memory per connection; portable is those of node:net and node:tls.",
    ),
  governor: GOVERNOR,
  shedding: SHEDDING,
  ticketKeys: section({
    rotation: ticketTime()
      .default('12h')
      .transform(toMs)
      .describe('How long keys are used; sessions end with the keys of their tickets.'),
  })
    .prefault({})
    .describe('Keys of session tickets, made at the start, shared by the workers and kept in memory.'),
  drain: DRAIN.prefault({}).describe('The way a process ends.'),
  reload: section({
    watch: z
      .boolean(expected('true or false'))
      .default(true)
      .describe('Reload when a file of the configuration changes, or one that it names. SIGHUP always does.'),
  })
    .prefault({})
    .describe('How changes of these settings come into force while the program runs.'),
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
