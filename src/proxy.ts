import type {
  AcceptedConnection,
  AcceptedSocket,
  CloseReason,
  Origin,
  ProtocolHandler,
  SecuredConnection,
  Serving,
  Trace,
} from './connection.ts'
import type { Metrics } from './control/metrics.ts'
import { asProxyError, ProxyError, reasonOf } from './errors.ts'
import type { Hold } from './generation/generations.ts'
import type { Governor, Visit } from './listener/governor.ts'
import { type Greeting, greet } from './listener/greet.ts'
import type { ListenerOptions } from './listener/listener.ts'
import type { Penalties } from './listener/penalties.ts'
import type { Portions } from './listener/portions.ts'
import { type Admission, admit, wantsCertificate } from './tls/admission.ts'
import { sendAlert } from './tls/alert.ts'
import type { Domain, Domains } from './tls/domains.ts'
import { handshake } from './tls/handshake.ts'
import type { RefusedResumptions } from './tls/tickets.ts'

/** What serves a connection from its ClientHello to its end, whatever is reloaded meanwhile. */
export interface Served {
  readonly domains: Domains
  readonly handlers: Readonly<Record<'mqtt' | 'https', ProtocolHandler>>
  /** Whether MQTT is carried by the second transport, where it can be. */
  readonly lift: boolean
}

export interface Parts {
  readonly metrics: Metrics
  readonly refusedResumptions: Pick<RefusedResumptions, 'has'>
  readonly governor: Governor
  readonly penalties: Pick<Penalties, 'check' | 'refused'>
  /** Whose ClientHello is read next, and whose CONNECT or request once TLS is up. */
  readonly turns: { readonly hello: Portions; readonly secured: Portions }
  /** Aborted when the process stops taking in devices. */
  readonly closing: AbortSignal
  /** The generation in force, held until it is left. */
  enter(): Hold<Served>
  /** Told once of every connection, at its very end. */
  ended(connection: Origin, trace: Trace, reason: CloseReason, error: ProxyError | null): void
}

/** The life of a device's connection, on one screen. Each step may only use what the one above proved. */
export function createServe(parts: Parts) {
  function begin(socket: AcceptedSocket, listener: ListenerOptions, acceptedAt: number): void {
    const connection = accept(socket, listener, acceptedAt)
    const life: Life = { connection, trace: newTrace(), visit: null, hold: null }
    const address = connection.remoteAddress === NO_ADDRESS ? null : connection.remoteAddress
    greet(socket, address, listener, performance.now() - acceptedAt, (met) => go(life, connection, met))
  }

  /** Whom the hello leaves no way in is refused within the turn that read it: a stranger costs no promise. */
  function go(life: Life, connection: AcceptedConnection, met: Greeting | ProxyError): void {
    const known = meet(parts, life, connection, met)
    if (known instanceof ProxyError || known === 'probe') finish(life, known)
    // No `await`: its frame would keep what is only needed to begin with for as long as the session lives.
    else
      void pass(parts, life, known).then(
        ({ over }) => void over.then((result) => finish(life, result)),
        (error: unknown) => finish(life, asProxyError(error)),
      )
  }

  function finish(life: Life, result: CloseReason | ProxyError): void {
    depart(parts, life, result)
    end(parts, life.connection, life.trace, result)
    life.hold?.leave()
  }

  return function serve(socket: AcceptedSocket, listener: ListenerOptions): void {
    const acceptedAt = performance.now()
    // A socket of node:net is read while it waits, and its end would be spent by the time of the handshake.
    const turn = socket.attach === undefined ? null : parts.turns.hello.next(socket)
    if (turn === null) begin(socket, listener, acceptedAt)
    else {
      // An error that nobody listens to would end the process.
      socket.on('error', () => {})
      void turn.then(() => begin(socket, listener, acceptedAt))
    }
  }
}

/** What has been learnt so far, for the ending. */
interface Life {
  connection: AcceptedConnection | SecuredConnection
  readonly trace: Trace
  /** Null until it is known from where it comes. */
  visit: Visit | null
  /** On the generation that serves it; null while none does. */
  hold: Hold<Served> | null
}

/** Its place is free from here, and what became of it is remembered. */
function depart({ governor, penalties }: Parts, { visit, connection }: Life, result: CloseReason | ProxyError): void {
  if (visit === null) return
  if (result instanceof ProxyError && 'domain' in connection) {
    penalties.refused(connection.domain.name, visit.place, result.code)
  }
  governor.leave(visit)
}

/** Who is there, by which generation it is served, and what of that it may use. */
interface Met {
  readonly connection: AcceptedConnection
  readonly visit: Visit
  readonly generation: Served
  readonly admitted: Admitted
}

/** From the hello to the ways in that it leaves open. Nothing is waited for. */
function meet(
  parts: Parts,
  life: Life,
  accepted: AcceptedConnection,
  met: Greeting | ProxyError,
): Met | 'probe' | ProxyError {
  if (met instanceof ProxyError) return met
  if (met.kind === 'probe') return met.kind
  try {
    const told = behind(accepted, met)
    life.connection = told
    const visit = parts.governor.arrive(told.remoteAddress)
    life.visit = visit
    const connection = { ...told, visit }
    life.connection = connection
    const hold = parts.enter()
    life.hold = hold
    const { generation } = hold
    const admitted = admission(parts, generation, connection, met, life.trace)
    return admitted instanceof ProxyError ? admitted : { connection, visit, generation, admitted }
  } catch (error) {
    return asProxyError(error)
  }
}

async function pass(parts: Parts, life: Life, known: Met): Promise<Serving> {
  const { trace } = life
  const { connection, visit, generation, admitted } = known
  const secured = await secure(parts, generation, connection, visit, admitted, trace)
  // The accepted socket has done its work, and with it goes what it holds.
  life.connection = secured
  const turn = parts.turns.secured.next(secured.tls)
  if (turn !== null) await turn
  const handler = generation.handlers[admitted.rows[0]!.protocol === 'mqtt' ? 'mqtt' : 'https']
  return handler.serve(secured, trace, parts.closing)
}

/** Of a connection that was reset before it was accepted. */
const NO_ADDRESS = 'unknown'

let count = 0
const PROCESS = (process.pid % 0x10000).toString(36)

function accept(socket: AcceptedSocket, listener: ListenerOptions, acceptedAt: number): AcceptedConnection {
  return {
    id: `${PROCESS}-${(count++).toString(36)}`,
    socket,
    port: listener.as,
    // On a socket for both families IPv4 comes as ::ffff:192.0.2.1; people and access lists write it without.
    remoteAddress: (socket.remoteAddress ?? NO_ADDRESS).replace(/^::ffff:(?=\d+\.)/, ''),
    remotePort: socket.remotePort ?? 0,
    acceptedAt,
    flightBytes: null,
  }
}

/** What the hello adds, and the device's own address where a trusted load balancer told it. */
function behind(
  accepted: AcceptedConnection,
  { source, hello, bytes }: Extract<Greeting, { kind: 'hello' }>,
): AcceptedConnection {
  const connection = { ...accepted, flightBytes: hello.hasEarlyData ? null : bytes }
  return source === null ? connection : { ...connection, remoteAddress: source.address, remotePort: source.port }
}

interface Admitted {
  readonly serverName: string
  /** As `ClientHello` has it. */
  readonly offersSession: boolean
  readonly domain: Domain
  readonly rows: readonly Admission[]
  readonly alpn: string | null
}

/** Rung 2: which ways in the ClientHello leaves open, before any key work. */
function admission(
  parts: Parts,
  { domains }: Served,
  connection: AcceptedConnection,
  greeting: Extract<Greeting, { kind: 'hello' }>,
  trace: Trace,
): Admitted | ProxyError {
  const { hello } = greeting
  trace.helloMs = performance.now() - connection.acceptedAt
  trace.hello = hello
  const { serverName } = hello
  if (serverName.kind === 'absent') return new ProxyError('ERR_SNI_MISSING', 'the ClientHello names no server')
  if (serverName.kind === 'invalid') return new ProxyError('ERR_SNI_INVALID', serverName.detail)
  trace.serverName = serverName.name
  const domain = domains.find(serverName.name)
  if (domain === null) return new ProxyError('ERR_SNI_UNKNOWN', `no domain is named ${serverName.name}`)
  if (!domain.enabled) return new ProxyError('ERR_DOMAIN_DISABLED', `${domain.name} is disabled`)
  const answer = admit(domain, connection.port, hello.alpnProtocols)
  if (answer.kind === 'refused') {
    return new ProxyError(answer.code, `port ${connection.port}, ${hello.alpnProtocols.length} ALPN names offered`)
  }
  parts.metrics.hello('ok')
  // Made now, so that a session does not keep what it is made of.
  trace.hello = { ja4: hello.ja4 }
  trace.mode = answer.admissions.map((row) => row.mode).join(' ')
  trace.protocol = answer.admissions[0]!.protocol
  const { offersSession } = hello
  return { serverName: serverName.name, offersSession, domain, rows: answer.admissions, alpn: answer.alpn }
}

/** Rung 3: TLS with the domain's own context. */
async function secure(
  parts: Parts,
  generation: Served,
  connection: AcceptedConnection,
  visit: Visit,
  admitted: Admitted,
  trace: Trace,
): Promise<SecuredConnection> {
  const { serverName, offersSession, domain, rows, alpn } = admitted
  const { governor } = parts
  trace.stage = 'queue'
  parts.penalties.check(domain.name, visit.place)
  const full = parts.refusedResumptions.has(connection.remoteAddress)
  const turn = governor.enter({
    visit,
    kind: offersSession && domain.resumes && !full ? 'resumed' : 'full',
    tenant: domain.name,
    socket: connection.socket,
    deadline: connection.acceptedAt + domain.handshakeTimeoutMs,
  })
  if (turn !== null) await turn
  trace.stage = 'handshake'
  const requestCert = wantsCertificate(rows)
  const started = performance.now()
  const { tls, version, resumed, peer } = await handshake(connection.socket, {
    context: domain.context(requestCert, full),
    requestCert,
    alpn,
    // HTTP is read by node:http, which needs a socket of Node's.
    lift: generation.lift && rows[0]!.protocol === 'mqtt',
    deadlineMs: connection.acceptedAt + domain.handshakeTimeoutMs - started,
    signal: parts.closing,
  })
  const securedAt = performance.now()
  parts.metrics.handshake('ok', version, (securedAt - started) / 1_000)
  if (resumed) parts.metrics.resumed(version)
  governor.secured(visit, resumed)
  trace.handshakeMs = securedAt - connection.acceptedAt
  trace.tlsVersion = version
  const { id, port, remoteAddress, remotePort, acceptedAt } = connection
  const origin = { id, port, remoteAddress, remotePort, acceptedAt, visit }
  return { ...origin, tls, serverName, domain, admissions: rows, peer, resumed, securedAt }
}

/** How long a peer may take to see our last bytes before the socket is destroyed. */
const LINGER_MS = 2_000

/** The one ending: the answer the stage allows, the counters, the log line, and no socket left behind. */
function end(
  parts: Parts,
  connection: AcceptedConnection | SecuredConnection,
  trace: Trace,
  result: CloseReason | ProxyError,
): void {
  const error = result instanceof ProxyError ? result : null
  const reason = result instanceof ProxyError ? result.code : result
  const stream = 'tls' in connection ? connection.tls : connection.socket
  if ((trace.stage === 'hello' || trace.stage === 'queue') && 'socket' in connection) {
    if (trace.stage === 'hello') {
      parts.metrics.hello(reason === 'probe' ? 'probe' : error === null ? 'ok' : reasonOf(error.code))
    }
    void sendAlert(connection.socket, error?.failure.alert ?? null, connection.flightBytes)
  } else {
    if (error !== null && trace.stage === 'handshake') parts.metrics.handshake(reasonOf(error.code), 'none', 0)
    if (stream.destroyed !== true) setTimeout(() => stream.destroy(), LINGER_MS)
  }
  parts.metrics.closed(reason)
  try {
    parts.ended(connection, trace, reason, error)
  } catch {
    // A log that cannot be written to must not end the process, and there is nobody left to tell.
  }
}

function newTrace(): Trace {
  return {
    stage: 'hello',
    mode: null,
    protocol: null,
    serverName: null,
    hello: null,
    tlsVersion: null,
    principal: null,
    clientId: null,
    mqttVersion: null,
    backend: null,
    upstream: null,
    helloMs: null,
    handshakeMs: null,
    connectedMs: null,
    requests: 0,
    bytesIn: 0,
    bytesOut: 0,
    packetsIn: 0,
    packetsOut: 0,
  }
}
