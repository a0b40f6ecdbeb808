import cluster from 'node:cluster'
import { type DestinationStream, type Logger, type LoggerOptions, pino } from 'pino'
import { PinoPretty } from 'pino-pretty'
import type { CloseReason, Origin, Trace } from '../connection.ts'
import { FAILURES, type FailureCode, type Fault } from '../errors.ts'
import { closeReasonLabel } from './metrics.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'
export type Fields = Readonly<Record<string, unknown>>

export interface Log {
  debug(fields: Fields, message: string): void
  info(fields: Fields, message: string): void
  warn(fields: Fields, message: string): void
  error(fields: Fields, message: string): void
}

export interface LogOptions {
  readonly level: LogLevel
  /** `auto` is `pretty` on a terminal and `json` elsewhere. */
  readonly format: 'auto' | 'json' | 'pretty'
  /** Standard output unless given. */
  readonly destination?: NodeJS.WritableStream
}

/** Values under these names are replaced. Nobody should log them: this is a net under the rope. */
const SECRET_NAMES = ['password', 'secret', 'token', 'authorization', 'privateKey', 'sessionToken', 'secretKey']

/** What may wait for a reader of standard output that is slow, in bytes. Past it, lines are dropped. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024

/** The log of a process. */
export interface ProcessLog extends Log {
  /** Whether lines of this severity are written now: what nobody reads need not be put together. */
  writes(level: LogLevel): boolean
  /** Least severity that is written from now on. */
  setLevel(level: LogLevel): void
  /** Writes what waits, at once. */
  flush(): void
  /** Resolves when what the system was just writing has been written, and what waits behind it, or after half a second. */
  written(): Promise<void>
}

/**
 * One JSON object per line, or one readable line per line. `written` and then `flush` before an exit that must not lose
 * the last ones: an exit takes the write along that is under way.
 */
export function createLog(options: LogOptions): ProcessLog {
  const settings: LoggerOptions = {
    level: options.level,
    messageKey: 'message',
    base: { pid: process.pid, worker: cluster.worker?.id ?? null },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { error: errorFacts },
    redact: { paths: SECRET_NAMES.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '[redacted]' },
  }
  const pretty = options.format === 'pretty' || (options.format === 'auto' && process.stdout.isTTY === true)
  if (pretty) {
    // In this process and synchronous: its usual place is a worker thread, which loses lines at exit.
    const stream = PinoPretty({
      colorize: process.stdout.isTTY === true && process.env.NO_COLOR === undefined,
      messageKey: 'message',
      translateTime: 'SYS:HH:MM:ss.l',
      ignore: 'pid,worker',
      singleLine: true,
      sync: true,
      destination: options.destination ?? 1,
    })
    return named(pino(settings, stream), () => {})
  }
  if (options.destination !== undefined) {
    return named(pino(settings, options.destination as DestinationStream), () => {})
  }
  // Asynchronous, so that a reader of our output that stops reading does not stop the sessions.
  const stdout = pino.destination({ dest: 1, sync: false, maxLength: MAX_WAITING_BYTES })
  // Without a listener a closed pipe (EPIPE) would end the process: a proxy outlives its log.
  stdout.on('error', () => {})
  return named(
    pino(settings, stdout),
    () => {
      try {
        stdout.flushSync()
      } catch {
        // Not open yet, or the reader is gone: nothing more can be done for these lines.
      }
    },
    () => (stdout as unknown as Writing)._writing === true,
  )
}

/** The one sign that pino's destination gives of a write that is under way. */
interface Writing {
  readonly _writing?: boolean
}

const LOOK_MS = 5
const MAX_LOOKS = 100

/** How deep the causes of an error are told. */
const MAX_CAUSES = 4

/**
 * What an error says, and nothing that somebody hung onto it: requests with their headers, tokens with their claims.
 * Messages and stacks of its causes follow its own.
 */
function errorFacts(error: unknown): unknown {
  if (!(error instanceof Error)) return { type: typeof error, message: String(error) }
  const messages: string[] = []
  const stacks: string[] = []
  let cause: unknown = error
  for (let depth = 0; depth < MAX_CAUSES && cause instanceof Error; depth++, cause = cause.cause) {
    messages.push(cause.message)
    stacks.push(cause.stack ?? String(cause))
  }
  const { code, syscall } = error as NodeJS.ErrnoException
  return {
    type: error.name,
    message: messages.join(': '),
    stack: stacks.join('\ncaused by: '),
    ...(typeof code === 'string' && { code }),
    ...(typeof syscall === 'string' && { syscall }),
  }
}

function named(logger: Logger, flush: () => void, isWriting: () => boolean = () => false): ProcessLog {
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    writes: (level) => logger.isLevelEnabled(level),
    setLevel(level) {
      logger.level = level
    },
    flush,
    async written() {
      for (let looks = 0; isWriting() && looks < MAX_LOOKS; looks++) {
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
      }
    },
  }
}

export const NO_LOG: Log = { debug() {}, info() {}, warn() {}, error() {} }

interface LogField {
  /** Of what the number counts; null where it is no number, or counts things. */
  readonly unit: 'ms' | 'bytes' | 'packets' | null
  readonly help: string
}

/** The fields of the lines about connections, in the order in which they are written. Names are public. */
// biome-ignore format: a table is read down its columns
export const LOG_FIELDS = {
  level:         { unit: null,      help: 'debug, info, warn or error.' },
  time:          { unit: null,      help: 'UTC, ISO 8601 with milliseconds.' },
  pid:           { unit: null,      help: 'Process id.' },
  worker:        { unit: null,      help: 'Number of the worker, counted up with every replacement; null in the primary and in a single process.' },
  event:         { unit: null,      help: 'session for one that reached the broker, attempt for one that did not; denied for what a policy denies; fault where an error of this program ended the process.' },
  id:            { unit: null,      help: 'Of the connection; unique among the processes.' },
  port:          { unit: null,      help: 'The port whose rules apply.' },
  remoteAddress: { unit: null,      help: 'Address of the device: of the socket, or as a trusted PROXY header says.' },
  remotePort:    { unit: null,      help: 'Its port.' },
  stage:         { unit: null,      help: 'The last stage it reached: accept, hello, queue (for its handshake), handshake, request (between two of HTTP), authenticate, connect, open or relay.' },
  reason:        { unit: null,      help: 'Why it ended: downstream or upstream (that side closed), probe, or a reason of the failure table.' },
  fault:         { unit: null,      help: 'Whose side ended it: downstream, upstream or proxy.' },
  mode:          { unit: null,      help: 'Letter of the row of the port × ALPN table.' },
  protocol:      { unit: null,      help: 'mqtt, wss or https.' },
  serverName:    { unit: null,      help: 'Server name of the ClientHello.' },
  ja4:           { unit: null,      help: 'JA4 fingerprint of the ClientHello.' },
  tlsVersion:    { unit: null,      help: 'TLSv1.2 or TLSv1.3.' },
  principal:     { unit: null,      help: 'Who it was found to be: SHA-256 fingerprint of the certificate, or the domain.' },
  clientId:      { unit: null,      help: 'MQTT client id as sent, cut at 128 characters.' },
  mqttVersion:   { unit: null,      help: 'Protocol level: 4 for 3.1.1, 5 for 5.0.' },
  backend:       { unit: null,      help: 'Name of the backend in the configuration.' },
  upstream:      { unit: null,      help: 'host:port of the broker it was connected to.' },
  helloMs:       { unit: 'ms',      help: 'From accept to the whole ClientHello.' },
  handshakeMs:   { unit: 'ms',      help: 'From accept to the end of the handshake.' },
  connectedMs:   { unit: 'ms',      help: 'From accept to the CONNACK, or to the first HTTP request that was served.' },
  requests:      { unit: null, help: 'HTTP requests that were taken up; left out where there were none.' },
  durationMs:    { unit: 'ms',      help: 'From accept to the end.' },
  bytesIn:       { unit: 'bytes',   help: 'Toward the broker, inside TLS.' },
  bytesOut:      { unit: 'bytes',   help: 'Toward the device, inside TLS.' },
  packetsIn:     { unit: 'packets', help: 'Toward the broker.' },
  packetsOut:    { unit: 'packets', help: 'Toward the device.' },
  action:        { unit: null,      help: 'What was denied, such as iot:Publish; at most ten such lines a second.' },
  resource:      { unit: null,      help: 'On what: the tail of its ARN, cut at 256 characters.' },
  reported:      { unit: null,      help: 'True: it passed all the same, because the policy of its domain is report.' },
  leftOut:       { unit: null,      help: 'Denials since the line before that were not written.' },
  detail:        { unit: null,      help: 'A sentence for people, cut at 256 characters; never to be matched.' },
  error:         { unit: null,      help: 'Type, message and stack of a fault of this program.' },
  message:       { unit: null,      help: 'A sentence for people; never to be matched.' },
} as const satisfies Record<string, LogField>

const MAX_CLIENT_ID_LENGTH = 128
const MAX_DETAIL_LENGTH = 256

export interface SessionExtra {
  readonly detail?: string
  /** Only for a fault of ours: its stack is written. */
  readonly error?: unknown
  /** `performance.now()` at the end; now unless given. */
  readonly endedAt?: number
}

export interface SessionLine {
  readonly fields: Fields
  readonly message: string
}

/** What the log needs of an accepted connection. */
export type LoggedConnection = Origin

/** What devices do is `info`, however wrong: anybody on the network can cause it. What the broker or we did wrong is `warn`. */
export function sessionLevel(reason: CloseReason): 'info' | 'warn' {
  // A drain ends every session; a warning for each would drown the ones that matter.
  return reason in FAILURES && faultOf(reason) !== 'downstream' && !PLANNED.has(reason) ? 'warn' : 'info'
}

/** The one line about a connection, written at its end. Fields that were never reached are left out. */
export function sessionLine(
  trace: Trace,
  connection: LoggedConnection,
  reason: CloseReason,
  extra: SessionExtra = {},
): SessionLine {
  const event = trace.connectedMs === null ? 'attempt' : 'session'
  const label = closeReasonLabel(reason)
  const all: Record<string, unknown> = {
    event,
    id: connection.id,
    port: connection.port,
    remoteAddress: connection.remoteAddress,
    remotePort: connection.remotePort,
    stage: trace.stage,
    reason: label,
    fault: faultOf(reason),
    mode: trace.mode,
    protocol: trace.protocol,
    serverName: trace.serverName,
    ja4: trace.hello?.ja4 ?? null,
    tlsVersion: trace.tlsVersion,
    principal: trace.principal,
    clientId: cut(trace.clientId, MAX_CLIENT_ID_LENGTH),
    mqttVersion: trace.mqttVersion,
    backend: trace.backend,
    upstream: trace.upstream,
    helloMs: rounded(trace.helloMs),
    handshakeMs: rounded(trace.handshakeMs),
    connectedMs: rounded(trace.connectedMs),
    requests: trace.requests === 0 ? null : trace.requests,
    durationMs: rounded((extra.endedAt ?? performance.now()) - connection.acceptedAt),
    bytesIn: trace.bytesIn,
    bytesOut: trace.bytesOut,
    packetsIn: trace.packetsIn,
    packetsOut: trace.packetsOut,
    detail: cut(extra.detail ?? null, MAX_DETAIL_LENGTH),
    error: extra.error ?? null,
  }
  const fields = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== null))
  return {
    fields,
    message: event === 'session' ? `session ended: ${label}` : `attempt ended in ${trace.stage}: ${label}`,
  }
}

/** Ends that an operator asked for. */
const PLANNED: ReadonlySet<CloseReason> = new Set<CloseReason>(['ERR_DRAINING', 'ERR_SERVER_DRAINING'])

function faultOf(reason: CloseReason): Fault {
  if (reason === 'upstream') return 'upstream'
  if (reason === 'downstream' || reason === 'probe') return 'downstream'
  return FAILURES[reason satisfies FailureCode].fault
}

function cut(text: string | null, length: number): string | null {
  return text === null || text.length <= length ? text : text.slice(0, length)
}

/** To the microsecond: more digits are noise in every line. */
function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms * 1000) / 1000
}
