import { type ChildProcess, spawn } from 'node:child_process'
import { generateKeyPairSync, sign } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createHttp, type Server } from 'node:http'
import { createServer as createHttps } from 'node:https'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { ca, device, server as localhostOnly, sleep, startMosquitto } from './e2e.ts'
import { createCa, issueDevice, issueServer } from './pki.ts'
import { folderFor, freePort, type RunningProxy, startProxy, type Teardowns, write } from './proxy.ts'

/** Every server name of the gateway below; `localhost` has the DEFAULT rows, the rest fix their own. */
export const NAMES = [
  'localhost',
  /** That of the published test vectors. */
  'abcdefexample-ats.iot.us-east-1.amazonaws.com',
  'jobs.test',
  'x509.test',
  'https.test',
  'custom.test',
  'customwss.test',
  'customhttps.test',
  'sigv4wss.test',
  'sigv4https.test',
  'both.test',
  'disabled.test',
] as const

export const VECTOR_HOST = NAMES[1]

export { ca, device, localhostOnly }

export const serverCertificate = issueServer(ca, { serverNames: [...NAMES], ips: ['127.0.0.1', '::1'] })

/** Where Debian's libfaketime lies; with it the wall clock of a process can be set, and the monotonic one goes on. */
export const FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1'

/** Registered and ACTIVE, with no policy at all. */
export const powerless = issueDevice(ca, { commonName: 'device-2' })
export const stranger = issueDevice(createCa({ commonName: 'elsewhere' }), { commonName: 'device-3' })

export const REGION = 'us-east-1'
export const ACCESS_KEY = { id: 'AKIDEXAMPLE', secret: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' } as const
export const TEMPORARY_KEY = { id: 'ASIAEXAMPLE00001', secret: 'temporary+secret', token: 'a+session/token==' } as const

const tokenKeys = generateKeyPairSync('rsa', { modulusLength: 2048 })
const TOKEN_PUBLIC = tokenKeys.publicKey.export({ type: 'spki', format: 'pem' }) as string
export const TOKEN = 'allow-me'
/** As `openssl dgst -sha256 -sign` gives it, in base64 with its `+`, `/` and `=`. */
export const signatureOf = (token: string): string =>
  sign('RSA-SHA256', Buffer.from(token), tokenKeys.privateKey).toString('base64')

/** What the authorizer was asked, as it arrived. */
export interface Asked {
  readonly token?: string
  readonly signatureVerified: boolean
  readonly protocols: readonly string[]
  readonly protocolData: {
    readonly tls?: Record<string, string>
    readonly http?: { readonly headers: Record<string, string>; readonly queryString: string }
    readonly mqtt?: { readonly username?: string; readonly password?: string; readonly clientId?: string }
  }
  readonly connectionMetadata: { readonly id: string }
}

/** The answer of an authorizer that says yes, as the AWS guide has it. */
export const yes = (asked: Asked, policy: unknown = ALLOW_ALL) => ({
  isAuthenticated: true,
  principalId: asked.protocolData.tls?.principalId ?? 'custom1',
  disconnectAfterInSeconds: 86_400,
  refreshAfterInSeconds: 300,
  policyDocuments: [policy],
})
export const ALLOW_ALL = {
  Version: '2012-10-17',
  Statement: [{ Effect: 'Allow', Action: 'iot:*', Resource: '*' }],
}

export type Answer = (asked: Asked, response: import('node:http').ServerResponse) => void | Promise<void>

export interface Gateway {
  readonly dir: string
  readonly proxy: RunningProxy
  /** Ports that stand for 8883, 8443 and 443; the same on 127.0.0.1 and ::1. */
  readonly ports: { readonly mqtt: number; readonly https: number; readonly web: number }
  readonly brokerPort: number
  /** Calls of the webhook so far, and what it answers from now on. */
  readonly asked: Asked[]
  answer: Answer
  /** Requests that reached the HTTP backend. */
  readonly forwarded: { readonly method: string; readonly url: string; readonly headers: Record<string, unknown> }[]
  /** SIGKILL unless told. */
  stopBroker(signal?: NodeJS.Signals): Promise<void>
  startBroker(): Promise<void>
}

export interface GatewayOptions {
  readonly workers?: number
  /** The section `drain`, in braces; a grace period of 5 s unless given. */
  readonly drain?: string
  /** More lines of the configuration, at its top level. */
  readonly extra?: string
  /** More lines of the domain `localhost`, each indented by four. */
  readonly domain?: string
  /** In place of the registry's `certificates` and `policies`. */
  readonly registry?: string
  /** More files, by their path in the configuration's folder. */
  readonly files?: Readonly<Record<string, string>>
  /** The wall clock at the start of the program, as `YYYY-MM-DD hh:mm:ss` in UTC. */
  readonly startsAt?: string
  /** More lines of the broker's configuration. */
  readonly broker?: string
  /** More settings of the way to the broker, behind a comma. */
  readonly toward?: string
  /** Before the program's command line. */
  readonly prefix?: readonly string[]
  /** A file that sets the wall clock while the program runs: seconds such as `+600`. */
  readonly clockFile?: string
  /** Puts something between the door and the broker: gets the broker's port, answers with its own. */
  readonly between?: (brokerPort: number) => Promise<number>
}

const json = (text: unknown): string => JSON.stringify(text)

export const REGISTRY = `certificates:
  - { file: certs/device.pem, status: ACTIVE, policies: [ everything ] }
  - { file: certs/powerless.pem, status: ACTIVE }
policies:
  everything: { file: policies/everything.json }
`

/** brokergate with every way in, before a real Mosquitto, an authorizer over HTTPS and an HTTP backend. */
export async function openGateway(t: Teardowns, options: GatewayOptions = {}): Promise<Gateway> {
  const dir = folderFor(t)
  const ports = { mqtt: await freePort(), https: await freePort(), web: await freePort() }
  const [metricsPort, brokerPort] = [await freePort(), await freePort()]

  const dialled = (await options.between?.(brokerPort)) ?? brokerPort
  const asked: Asked[] = []
  const forwarded: Gateway['forwarded'] = []
  const gateway = { answer: (question, response) => void response.end(json(yes(question))) } as { answer: Answer }
  const hookCertificate = issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1'] })
  const hook = createHttps({ key: hookCertificate.keyPem, cert: hookCertificate.chainPem }, (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const question = JSON.parse(Buffer.concat(chunks).toString()) as Asked
      asked.push(question)
      response.setHeader('content-type', 'application/json')
      void Promise.resolve(gateway.answer(question, response)).catch(() => response.destroy())
    })
  })
  const shadows = createHttp((request, response) => {
    forwarded.push({ method: request.method ?? '', url: request.url ?? '', headers: { ...request.headers } })
    request.resume()
    request.on('end', () => response.end(json({ forwarded: true })))
  })
  const [hookPort, shadowPort] = [await listen(t, hook), await listen(t, shadows)]

  write(dir, 'ca.pem', ca.certPem)
  write(dir, 'server.pem', serverCertificate.chainPem)
  write(dir, 'server.key', serverCertificate.keyPem)
  for (const [name, issued] of Object.entries({ device, powerless, stranger })) {
    write(dir, `${name}.pem`, issued.chainPem)
    write(dir, `${name}.key`, issued.keyPem)
    write(dir, `registry/certs/${name}.pem`, issued.certPem)
  }
  for (const [name, text] of Object.entries(options.files ?? {})) write(dir, name, text)
  write(dir, 'registry/keys/token.pem', TOKEN_PUBLIC)
  write(dir, 'registry/hook-ca.pem', ca.certPem)
  write(dir, 'registry/policies/everything.json', json(ALLOW_ALL))
  write(
    dir,
    'registry/registry.yaml',
    `${options.registry ?? REGISTRY}
accessKeys:
  - { id: ${ACCESS_KEY.id}, secret: ${json(ACCESS_KEY.secret)}, policies: [ everything ] }
  - { id: ${TEMPORARY_KEY.id}, secret: ${json(TEMPORARY_KEY.secret)}, sessionToken: ${json(TEMPORARY_KEY.token)}, policies: [ everything ] }
authorizers:
  signed: { kind: webhook, url: "https://localhost:${hookPort}/device", ca: hook-ca.pem, tokenKeyName: MyToken, signing: { keys: [ keys/token.pem ] } }
  open: { kind: webhook, url: "https://localhost:${hookPort}/device", ca: hook-ca.pem, tokenKeyName: MyToken }
`,
  )
  const explicit = (name: string, type: string, protocol: string, more = '') =>
    `  - { serverNames: [ ${name} ], certificates: [ { cert: server.pem, key: server.key } ], authenticationType: ${type}, applicationProtocol: ${protocol}, registry: main, backend: main${more} }`
  const custom = ', authorizers: [ open ], defaultAuthorizer: open'
  const file = write(
    dir,
    'brokergate.yaml',
    `listeners:
${['127.0.0.1', '[::1]']
  .flatMap((host) => [
    `  - { bind: "${host}:${ports.mqtt}", as: 8883 }`,
    `  - { bind: "${host}:${ports.https}", as: 8443 }`,
    `  - { bind: "${host}:${ports.web}", as: 443 }`,
  ])
  .join('\n')}
domains:
  - serverNames: [ localhost, ${VECTOR_HOST} ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    backend: main
    authorizers: [ signed, open ]
    allowAuthorizerOverride: true
    routes:
      - { path: "/things/*/shadow", methods: [ GET, POST, DELETE ], backend: shadows, action: "iot:GetThingShadow" }
${options.domain ?? ''}
  - { serverNames: [ jobs.test ], certificates: [ { cert: server.pem, key: server.key } ], registry: main, backend: main, endpointType: jobs }
  - { serverNames: [ disabled.test ], status: disabled, certificates: [ { cert: server.pem, key: server.key } ], registry: main, backend: main }
${[
  explicit('x509.test', 'AWS_X509', 'SECURE_MQTT'),
  explicit('https.test', 'AWS_X509', 'HTTPS'),
  explicit('custom.test', 'CUSTOM_AUTH', 'SECURE_MQTT', custom),
  explicit('customwss.test', 'CUSTOM_AUTH', 'MQTT_WSS', custom),
  explicit('customhttps.test', 'CUSTOM_AUTH', 'HTTPS', custom),
  explicit('sigv4wss.test', 'AWS_SIGV4', 'MQTT_WSS'),
  explicit('sigv4https.test', 'AWS_SIGV4', 'HTTPS'),
  explicit('both.test', 'CUSTOM_AUTH_X509', 'SECURE_MQTT', custom),
].join('\n')}
backends:
  main: { kind: tcp, servers: [ { address: "127.0.0.1:${dialled}" } ]${options.toward ?? ''} }
  shadows: { kind: http, url: "http://127.0.0.1:${shadowPort}" }
registries: { main: { path: registry } }
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: ${options.workers ?? 1}
drain: ${options.drain ?? '{ grace: 5s }'}
log: { format: json, level: debug }
${options.extra ?? ''}
`,
  )
  const broker = restartable(t, dir, brokerPort, options.broker ?? '')
  await broker.startBroker()
  const clock = clockOf(options)
  const proxy = await startProxy(t, file, metricsPort, {
    prefix: [
      ...(clock.length === 0
        ? []
        : ['env', `LD_PRELOAD=${FAKETIME}`, 'FAKETIME_DONT_FAKE_MONOTONIC=1', 'TZ=UTC', ...clock]),
      ...(options.prefix ?? []),
    ],
  })
  return Object.assign(gateway, { dir, proxy, ports, brokerPort, asked, forwarded, ...broker })
}

function clockOf({ startsAt, clockFile }: GatewayOptions): readonly string[] {
  if (clockFile !== undefined) return [`FAKETIME_TIMESTAMP_FILE=${clockFile}`, 'FAKETIME_NO_CACHE=1']
  return startsAt === undefined ? [] : [`FAKETIME=@${startsAt}`]
}

function restartable(t: Teardowns, dir: string, port: number, more: string) {
  let child: ChildProcess | null = null
  const config = write(
    dir,
    'broker/mosquitto.conf',
    `listener ${port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_type error\npersistence true\npersistence_location ${dir}/broker/\nautosave_interval 1\nmax_queued_messages 0\n${more}\n`,
  )
  const stopBroker = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }
  t.teardown(() => stopBroker())
  return {
    stopBroker,
    async startBroker(): Promise<void> {
      child = spawn('mosquitto', ['-c', config], { stdio: 'ignore' })
      for (let tries = 0; ; tries++) {
        if (await answers(port)) return
        if (tries > 100) throw new Error('mosquitto does not listen')
        await sleep(50)
      }
    },
  }
}

async function answers(port: number): Promise<boolean> {
  const { connect } = await import('node:net')
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    const tell = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => tell(true))
    socket.once('error', () => tell(false))
  })
}

async function listen(t: Teardowns, server: Server): Promise<number> {
  server.listen({ host: '127.0.0.1', port: 0 })
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as { port: number }).port
}

export interface Ended {
  readonly text: string
  readonly bytes: Buffer
  /** Selected ALPN name, false when none was. */
  readonly alpn: string | false | null
  /** Code of the TLS or socket error that ended it; null for an end in good order. */
  readonly error: string | null
}

export interface RawOptions {
  readonly host?: string
  readonly servername?: string
  readonly alpn?: readonly string[]
  readonly certificate?: { readonly chainPem: string; readonly keyPem: string } | null
  /** Sent once TLS is up. */
  readonly send?: Buffer | string
  /** Ends our side when this many bytes, or these, have come; else waits for the other side. */
  readonly enough?: number | Buffer
  readonly timeoutMs?: number
}

/** TLS, some bytes, and all that comes back until the other side ends. */
export function raw(port: number, options: RawOptions): Promise<Ended> {
  return new Promise((resolve) => {
    const certificate = options.certificate ?? null
    const socket: TLSSocket = connectTls({
      host: options.host ?? '127.0.0.1',
      port,
      servername: options.servername ?? 'localhost',
      ca: ca.certPem,
      ...(options.alpn !== undefined && { ALPNProtocols: [...options.alpn] }),
      ...(certificate !== null && { cert: certificate.chainPem, key: certificate.keyPem }),
    })
    const chunks: Buffer[] = []
    let length = 0
    let error: string | null = null
    let alpn: Ended['alpn'] = null
    const timer = setTimeout(() => {
      error ??= 'TIMEOUT'
      socket.destroy()
    }, options.timeoutMs ?? 15_000)
    socket.on('secureConnect', () => {
      alpn = socket.alpnProtocol as string | false
      if (options.send !== undefined) socket.write(options.send)
    })
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      length += chunk.length
      const { enough } = options
      if (enough === undefined) return
      if (typeof enough === 'number' ? length >= enough : Buffer.concat(chunks).includes(enough)) socket.end()
    })
    socket.on('error', (fault: NodeJS.ErrnoException) => {
      error ??= fault.code ?? fault.message
    })
    socket.on('close', () => {
      clearTimeout(timer)
      const bytes = Buffer.concat(chunks)
      resolve({ text: bytes.toString('latin1'), bytes, alpn, error })
    })
  })
}

export { folderFor, freePort, startMosquitto, write }
