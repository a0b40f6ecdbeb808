import { randomBytes, scrypt } from 'node:crypto'
import type { PasswordHash } from './entries.ts'

export interface PasswordIssue {
  /** From 1. */
  readonly line: number
  /** Never repeats the line: it may hold a password. */
  readonly message: string
}

export interface PasswordFile {
  readonly users: ReadonlyMap<string, PasswordHash>
  readonly issues: readonly PasswordIssue[]
}

const MAX_USERS = 1_000_000
/** Of salt and hash; `mosquitto_passwd` writes 12 and 64. */
const SALT_BYTES = [8, 64] as const
const HASH_BYTES = [32, 64] as const
/** A check must stay within a second or so, whatever a file says. */
const MAX_ITERATIONS = 2_000_000
/** log₂ of the cost, block size and parallelization (RFC 7914 §2); together at most 256 MiB and as many rounds. */
const MAX_LOG_COST = 20
const MAX_SCRYPT_BYTES = 256 * 1_048_576

const HOW = 'make it with mosquitto_passwd -H sha512-pbkdf2 or brokergate passwd'

/**
 * `user:hash`, one a line; empty lines and those that begin with `#` are skipped. A hash is `$7$iterations$salt$hash`
 * (PBKDF2 with SHA-512, as `mosquitto_passwd` writes it) or `$scrypt$ln=15,r=8,p=1$salt$hash` (PHC string format).
 *
 * A line that cannot be read is an issue and no user: Mosquitto's CVE-2018-12551 let such lines in.
 */
export function readPasswordFile(text: string): PasswordFile {
  const users = new Map<string, PasswordHash>()
  const issues: PasswordIssue[] = []
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.replace(/\r$/, '')
    if (line.trim() === '' || line.startsWith('#')) continue
    const found = readLine(line)
    const issue = (message: string) => issues.push({ line: index + 1, message })
    if (typeof found === 'string') issue(found)
    else if (users.has(found.user)) issue('this user stands in the file already')
    else if (users.size >= MAX_USERS) return { users, issues: [...issues, tooMany(index + 1)] }
    else users.set(found.user, found.hash)
  }
  return { users, issues }
}

const tooMany = (line: number): PasswordIssue => ({ line, message: `more than ${MAX_USERS} users` })

function readLine(line: string): { readonly user: string; readonly hash: PasswordHash } | string {
  const colon = line.indexOf(':')
  if (colon < 0) return `expected user:hash; ${HOW}`
  const user = line.slice(0, colon)
  if (!isUser(user)) return USER_WORDS
  const hash = readPasswordHash(line.slice(colon + 1))
  return typeof hash === 'string' ? hash : { user, hash }
}

/** Goes to logs and, by templates, to the broker. `?` begins the parameters in a user name of MQTT. */
const isUser = (user: string): boolean => /^[\x21-\x39\x3b-\x3e\x40-\x7e]{1,128}$/.test(user)
const USER_WORDS = 'expected a user of 1–128 visible ASCII characters without "?", ":" and space'

/** 16 MiB and some 40 ms a check: what a fleet that comes back at once can still be asked. */
const LOG_COST = 14
const BLOCK_SIZE = 8

export type PasswordLine =
  | { readonly kind: 'line'; readonly text: string }
  | { readonly kind: 'refused'; readonly message: string }

/** A line for the file, with a salt of its own. */
export function passwordLine(user: string, password: string): Promise<PasswordLine> {
  const refused = (message: string): PasswordLine => ({ kind: 'refused', message })
  if (!isUser(user)) return Promise.resolve(refused(USER_WORDS))
  const bytes = Buffer.byteLength(password)
  if (bytes < 1 || bytes > 1_024) return Promise.resolve(refused('expected a password of 1–1024 bytes'))
  const salt = randomBytes(16)
  const base64 = (octets: Buffer): string => octets.toString('base64').replace(/=+$/, '')
  return new Promise((resolve, reject) => {
    const maxmem = 64 * 1_048_576
    scrypt(password, salt, 32, { N: 2 ** LOG_COST, r: BLOCK_SIZE, p: 1, maxmem }, (error, hash) => {
      if (error) return reject(error)
      const text = `${user}:$scrypt$ln=${LOG_COST},r=${BLOCK_SIZE},p=1$${base64(salt)}$${base64(hash)}`
      resolve({ kind: 'line', text })
    })
  })
}

/** A text says what is wrong. */
export function readPasswordHash(text: string): PasswordHash | string {
  const [empty, kind, parameters, salt, hash, ...rest] = text.split('$')
  if (empty !== '' || hash === undefined || rest.length > 0) return `expected $7$… or $scrypt$…; ${HOW}`
  if (kind !== '7' && kind !== 'scrypt') return `a hash of another kind than $7$ and $scrypt$; ${HOW}`
  const saltBytes = fromBase64(salt!, SALT_BYTES)
  const hashBytes = fromBase64(hash, HASH_BYTES)
  if (saltBytes === null) return `expected a salt of ${SALT_BYTES.join('–')} bytes in base64`
  if (hashBytes === null) return `expected a hash of ${HASH_BYTES.join('–')} bytes in base64`
  if (kind === '7') {
    const iterations = numberOf(parameters!)
    if (!(iterations >= 1 && iterations <= MAX_ITERATIONS)) return `expected 1–${MAX_ITERATIONS} iterations`
    return { kind: 'pbkdf2-sha512', iterations, salt: saltBytes, hash: hashBytes }
  }
  const [, ln = '', r = '', p = ''] = /^ln=(\d+),r=(\d+),p=(\d+)$/.exec(parameters!) ?? []
  const [logCost, blockSize, parallelization] = [numberOf(ln), numberOf(r), numberOf(p)]
  if (!(logCost >= 1 && logCost <= MAX_LOG_COST && blockSize >= 1 && parallelization >= 1)) {
    return `expected ln=…,r=…,p=… with ln from 1 to ${MAX_LOG_COST}`
  }
  const cost = 2 ** logCost
  if (!(128 * cost * blockSize * parallelization <= MAX_SCRYPT_BYTES)) {
    return 'ln, r and p that ask for more than 256 MiB'
  }
  return { kind: 'scrypt', cost, blockSize, parallelization, salt: saltBytes, hash: hashBytes }
}

/** Decimal digits without a leading zero; NaN for the rest. */
const numberOf = (text: string): number => (/^[1-9]\d{0,8}$/.test(text) ? Number(text) : Number.NaN)

/** Strictly: padded as `mosquitto_passwd` writes it, or not at all as PHC strings are; nothing else decodes. */
function fromBase64(text: string, [least, most]: readonly [number, number]): Buffer | null {
  const bytes = Buffer.from(text, 'base64')
  const padded = bytes.toString('base64')
  if (text !== padded && text !== padded.replace(/=+$/, '')) return null
  return bytes.length < least || bytes.length > most ? null : bytes
}
