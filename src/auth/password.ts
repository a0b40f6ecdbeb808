import { createHash, pbkdf2, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import type { PasswordHash } from '../registry/entries.ts'
import { type Answer, DEFAULT_DISCONNECT_MS, type No } from './answer.ts'
import type { Asked, AskedDeps, EntryOf } from './authorizer.ts'
import { guard } from './guard.ts'
import type { Question } from './question.ts'

const pbkdf2Async = promisify(pbkdf2)
const scryptAsync = promisify<Buffer, Buffer, number, { N: number; r: number; p: number; maxmem: number }, Buffer>(
  scrypt,
)

/** At once and in one process: more would only wait for the pool of the runtime, which has four threads. */
const HASHES_AT_ONCE = 4
const MAX_PASSWORD_BYTES = 1_024

/** For a file without users; nothing hashes to it. */
const NOBODY: PasswordHash = {
  kind: 'pbkdf2-sha512',
  iterations: 1_000,
  salt: Buffer.alloc(12),
  hash: Buffer.alloc(64),
}

/**
 * Checks user name and password against hashes: those of MQTT, or of HTTP's Basic authentication (RFC 7617).
 *
 * A user who is not there costs the work of one who is; which user's, the name decides, so that it is always the same.
 */
export function password(entry: EntryOf<'password'>, deps: AskedDeps): Asked {
  const { name, timeoutMs, concurrency, users, policies } = entry
  const guarded = guard({ name, timeoutMs, concurrency: Math.min(concurrency, HASHES_AT_ONCE), ...deps })
  const hashes = [...users.values()]
  return {
    async ask(question, signal) {
      const given = loginOf(question)
      if (given.kind === 'no') return given
      if (given.password.length > MAX_PASSWORD_BYTES) return WRONG
      const stored = users.get(given.user)
      const against = stored ?? standIn(given.user, hashes)
      const right = await guarded.run(
        () => matches(against, given.password),
        signal,
        (is) => (is ? 'allowed' : 'denied'),
      )
      if (stored === undefined || !right) return WRONG
      return yes(given.user, policies)
    },
    problem: async () => null,
    close() {},
  }
}

const WRONG: No = { kind: 'no', code: 'ERR_CREDENTIALS_REFUSED', detail: 'no such user, or another password' }
const ABSENT: No = { kind: 'no', code: 'ERR_CREDENTIALS_ABSENT', detail: 'no user name, or no password' }

function yes(principalId: string, policies: readonly string[]): Answer {
  return {
    kind: 'yes',
    principalId,
    attributes: {},
    documents: [],
    grants: null,
    policies,
    disconnectAfterMs: DEFAULT_DISCONNECT_MS,
    refreshAfterMs: null,
  }
}

export type Login = { readonly kind: 'login'; readonly user: string; readonly password: Uint8Array } | No

/** CONNECT's where there is one; then nobody asks what the upgrade said. */
function loginOf({ mqtt, parameters }: Question): Login {
  if (mqtt !== null) {
    if (parameters.user === null || mqtt.password === null) return ABSENT
    return { kind: 'login', user: parameters.user, password: mqtt.password }
  }
  const basic = parameters.basic()
  if (basic.kind === 'malformed') return { kind: 'no', code: 'ERR_CREDENTIALS_MALFORMED', detail: basic.detail }
  return basic.value === null ? ABSENT : { kind: 'login', ...basic.value }
}

function standIn(user: string, hashes: readonly PasswordHash[]): PasswordHash {
  if (hashes.length === 0) return NOBODY
  return hashes[createHash('sha256').update(user).digest().readUInt32BE() % hashes.length]!
}

async function matches(stored: PasswordHash, given: Uint8Array): Promise<boolean> {
  return timingSafeEqual(await derive(stored, Buffer.from(given)), stored.hash)
}

/** The hash of this password with the stored one's salt and parameters. */
export function derive(stored: PasswordHash, given: Buffer): Promise<Buffer> {
  const { salt, hash } = stored
  if (stored.kind === 'pbkdf2-sha512') return pbkdf2Async(given, salt, stored.iterations, hash.length, 'sha512')
  const { cost: N, blockSize: r, parallelization: p } = stored
  // Node's own bound is 32 MiB; what a file may ask for was bounded when it was read.
  return scryptAsync(given, salt, hash.length, { N, r, p, maxmem: 256 * N * r * p + 1_048_576 })
}
