import { chmodSync, lstatSync, mkdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import type { RegistryOwner } from '../registry/owner.ts'
import type { Connections } from './connections.ts'
import { jsonReply, listening, type Reply, type RunningServer, routesServer } from './http.ts'
import type { Log } from './log.ts'
import type { Reloaded } from './reload.ts'
import type { ServerDrains } from './server-drains.ts'

export interface AdminServerOptions {
  /** Path of the unix socket. */
  readonly path: string
  readonly status: () => unknown
  /** Begins a drain and returns; the answer does not wait for its end. */
  readonly drain: () => void
  readonly servers: Pick<ServerDrains, 'drain' | 'undo'>
  /** Begins to replace the workers and returns; `status` tells how it goes. */
  readonly restart: () => { readonly refused: string | null }
  /** Resolves when it is done, refused or ignored. */
  readonly reload: () => Promise<Reloaded>
  readonly certificates: Pick<RegistryOwner, 'list' | 'decide'>
  readonly connections: Connections
  readonly log: Log
}

/** What somebody wants of a certificate, as it comes over the socket. */
const DECISION = z.strictObject({
  registry: z.string().nullable(),
  certificate: z.string(),
  der: z.base64().optional(),
  status: z.enum(['ACTIVE', 'INACTIVE', 'REVOKED']),
  policies: z.array(z.string()).max(64).optional(),
  things: z.array(z.string()).max(64).optional(),
})

const SERVER = z.strictObject({ backend: z.string(), server: z.string(), undo: z.boolean().optional() })

const KICK = z.strictObject({ clientId: z.string() })

/** `sun_path` holds 108 bytes with the final zero on Linux and 104 on BSD and macOS: unix(7). */
const MAX_SOCKET_PATH_BYTES = 103

/**
 * What shows identities or changes something: `GET /status`, `POST /drain` (of the instance, or of one server of a
 * backend), `POST /restart`, `GET /connections`, `POST /kick`,
        },
      },
 * What shows identities or changes something: `GET /status`, `POST /drain`, `POST /reload`, `GET /connections`, `POST /kick`,
 * `GET` and `POST /certificates`. Who may open the socket (mode 0600, in a
 * folder made with 0700) may do it all; a folder that exists keeps its mode. A socket on which nobody listens is
 * left over from a crash and is removed; anything else in its place is an error.
 *
 * @throws when the path is taken, too long, or cannot be bound.
 */
export async function startAdminServer(options: AdminServerOptions): Promise<RunningServer> {
  const path = resolve(options.path)
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
    throw new Error(`admin socket: ${path} is longer than the ${MAX_SOCKET_PATH_BYTES} bytes a unix socket may have`)
  }
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  await removeStale(path)

  const server = routesServer(
    {
      '/status': { GET: () => jsonReply(200, options.status()) },
      '/drain': {
        POST(body) {
          if (body !== undefined) return drainServer(options, body)
          options.drain()
          return jsonReply(202, { draining: true })
        },
      },
      '/restart': {
        POST() {
          const { refused } = options.restart()
          return refused === null ? jsonReply(202, { restarting: true }) : jsonReply(409, { error: refused })
        },
      },
      '/reload': {
        async POST() {
          const reloaded = await options.reload()
          const well = reloaded.kind === 'done' || reloaded.kind === 'unchanged'
          return jsonReply(well ? 200 : 409, reloaded)
        },
      },
      '/connections': { GET: async () => jsonReply(200, await options.connections.list()) },
      '/kick': {
        async POST(body) {
          const kick = KICK.safeParse(body)
          if (!kick.success) return jsonReply(400, { error: 'expected { "clientId": "…" }' })
          return jsonReply(200, { kicked: await options.connections.kick(kick.data.clientId) })
        },
      },
      '/certificates': {
        GET: () => jsonReply(200, options.certificates.list(null)),
        POST: (body) => decide(options, body),
      },
    },
    options.log,
  )
  // The file must never exist with wider rights, not even between bind and chmod.
  const umask = process.umask(0o177)
  let running: RunningServer
  try {
    const starting = listening(server, { path })
    process.umask(umask)
    running = await starting
    chmodSync(path, 0o600)
  } finally {
    process.umask(umask)
  }
  return {
    address: path,
    async close() {
      await running.close()
      rmSync(path, { force: true })
    },
  }
}

function decide({ certificates, log }: AdminServerOptions, body: unknown): Reply {
  const wanted = DECISION.safeParse(body)
  if (!wanted.success) return jsonReply(400, { error: 'expected registry, certificate and status' })
  const decided = certificates.decide(wanted.data)
  if (decided.kind === 'refused') return jsonReply(409, { error: decided.reason })
  const { registry, fingerprint, status } = decided
  log.info({ registry, principal: fingerprint, status }, 'status of a certificate changed')
  return jsonReply(200, { registry, fingerprint, status })
}

function drainServer({ servers, log }: AdminServerOptions, body: unknown): Reply {
  const wanted = SERVER.safeParse(body)
  if (!wanted.success) return jsonReply(400, { error: 'expected nothing, or { "backend": "…", "server": "…" }' })
  const { backend, server, undo = false } = wanted.data
  const answer = undo ? servers.undo(backend, server) : servers.drain(backend, server)
  if (answer.kind === 'refused') return jsonReply(404, { error: answer.reason })
  log.info({ backend, server }, undo ? 'a server gets connections again' : 'a server is to be drained')
  if (answer.warning !== null) log.warn({ backend, server }, answer.warning)
  return jsonReply(200, { drained: answer.drained, warning: answer.warning })
}

async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return
  if (!found.isSocket()) throw new Error(`admin socket: ${path} exists and is not a socket`)
  if (await somebodyListens(path)) throw new Error(`admin socket: another process listens on ${path}`)
  rmSync(path, { force: true })
}

function somebodyListens(path: string): Promise<boolean> {
  return new Promise((settle, reject) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      settle(true)
    })
    socket.once('error', (error: NodeJS.ErrnoException) => {
      // Only a refusal proves that nobody is there; not being allowed to ask (EACCES) proves nothing.
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') settle(false)
      else reject(error)
    })
  })
}
