import { chmod, lstat, mkdir, rm } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Backend } from './backend.ts'
import { type TcpOptions, tcp } from './tcp.ts'

export interface EmbeddedBrokerOptions {
  /** Of the unix socket; its folder is made, and must be, open to this user alone. */
  readonly path: string
  /** A fault of one client or of the broker itself, for the log. The broker goes on. */
  readonly onError?: (error: Error) => void
}

export interface EmbeddedBroker {
  close(): Promise<void>
}

/** `sun_path` holds 104 bytes on macOS and 108 on Linux, with the final zero; longer paths may be cut in silence. */
const MAX_PATH_BYTES = 103

/** A subscriber that reads nothing for so long is closed, because aedes lets it hold up the others. */
const DRAIN_TIMEOUT_MS = 10_000

/** Packets that a client may send before its CONNACK; aedes' own 42 is soon reached by an eager device. */
const QUEUE_PACKETS = 1_024

/** For DISCONNECT to reach the clients at the end; then their sockets are destroyed. */
const CLOSE_GRACE_MS = 1_000

/**
 * The broker of a first run: aedes, MQTT 3.1.1 and 5, in memory, on a unix socket.
 *
 * It asks nobody who they are: whoever reaches the socket may do everything. Therefore the folder is
 * 0700 and the proxy stands in front. It runs once, in the primary; retained messages and sessions end
 * with the process. Shared subscriptions are not served, and CONNACK says so.
 *
 * @throws when the folder is open to others, the path too long, or another process serves it.
 */
export async function startEmbeddedBroker(options: EmbeddedBrokerOptions): Promise<EmbeddedBroker> {
  const { path, onError = ignore } = options
  await claim(path)
  // Only where it is started: most processes have brokers of their own.
  const { Aedes } = await import('aedes')
  const aedes = await Aedes.createBroker({ drainTimeout: DRAIN_TIMEOUT_MS, queueLimit: QUEUE_PACKETS })
  // Without a listener `error` ends the process; the other two are where a broken client shows up.
  ;(aedes as NodeJS.EventEmitter).on('error', onError)
  aedes.on('clientError', (_, error) => onError(error))
  aedes.on('connectionError', (_, error) => onError(error))

  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.on('error', ignore)
    aedes.handle(socket)
  })
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ path }, resolve)
    })
    await chmod(path, 0o600)
  } catch (error) {
    server.close()
    aedes.close()
    throw error
  }
  server.on('error', onError)

  let closing: Promise<void> | null = null
  return {
    close() {
      closing ??= closeAll()
      return closing
    },
  }

  async function closeAll(): Promise<void> {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    const timer = setTimeout(destroyAll, CLOSE_GRACE_MS)
    await new Promise<void>((resolve) => aedes.close(resolve))
    clearTimeout(timer)
    destroyAll()
    await closed
    await rm(path, { force: true })
  }

  function destroyAll(): void {
    for (const socket of sockets) socket.destroy()
  }
}

export type EmbeddedOptions = Pick<
  TcpOptions,
  'name' | 'identity' | 'connectTimeoutMs' | 'onDial' | 'lift' | 'now' | 'random'
> & {
  /** Where `startEmbeddedBroker` listens. */
  readonly path: string
}

/** The workers' way to the embedded broker: one server, one unix socket. Errors as `tcp` has them. */
export function embedded({ path, ...options }: EmbeddedOptions): Backend {
  return tcp({ ...options, servers: [{ path }], balance: 'roundrobin', proxyHeader: null, tls: null })
}

/** Makes the path free to listen on, or says why it is not. */
async function claim(path: string): Promise<void> {
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
    throw new Error(`${path}: a unix socket's path has at most ${MAX_PATH_BYTES} bytes`)
  }
  const folder = dirname(path)
  await mkdir(folder, { recursive: true, mode: 0o700 })
  if (((await lstat(folder)).mode & 0o077) !== 0) throw new Error(`${folder}: must be open to its owner alone (0700)`)
  const found = await lstat(path).catch(() => null)
  if (found === null) return
  if (!found.isSocket()) throw new Error(`${path}: exists and is not a socket`)
  if (await answers(path)) throw new Error(`${path}: another process serves it`)
  // What a crash left behind.
  await rm(path, { force: true })
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path })
    const tell = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => tell(true))
    socket.once('error', () => tell(false))
  })
}

function ignore(): void {}
