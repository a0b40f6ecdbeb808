import { createHash, createHmac, randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { canonicalQuery, canonicalRequest, encoded, type Pair } from './sigv4-canonical.ts'

export const ALGORITHM = 'AWS4-HMAC-SHA256'
/** The last part of every scope. */
export const TERMINATOR = 'aws4_request'
export const EMPTY_PAYLOAD_HASH = sha256Hex('')

/** Where and when a signature counts. */
export interface Scope {
  /** `YYYYMMDD` */
  readonly date: string
  readonly region: string
  readonly service: string
}

export const scopeText = ({ date, region, service }: Scope): string => `${date}/${region}/${service}/${TERMINATOR}`

export function signingKey(secret: string, { date, region, service }: Scope): Buffer {
  const ofDate = hmac(`AWS4${secret}`, date)
  return hmac(hmac(hmac(ofDate, region), service), TERMINATOR)
}

/**
 * The signature, 64 lower-case hex digits.
 * @param timestamp `YYYYMMDDTHHMMSSZ`
 * @param request the canonical request, one character per octet
 */
export function sign(key: Buffer, timestamp: string, scope: Scope, request: string): string {
  const hash = createHash('sha256').update(request, 'latin1').digest('hex')
  return hmac(key, `${ALGORITHM}\n${timestamp}\n${scopeText(scope)}\n${hash}`).toString('hex')
}

/** `YYYYMMDDTHHMMSSZ`, basic ISO 8601 in UTC. */
export function timestampOf(date: Date): string {
  return `${date.toISOString().slice(0, 19).replace(/[-:]/g, '')}Z`
}

/**
 * Signing keys that were derived lately. Deriving is four HMACs; finding is one. Entries are found by a keyed hash, so
 * that the cache holds no secret in readable form, and a changed secret is another entry.
 */
export class SigningKeys {
  readonly #cache: LRUCache<string, Buffer>
  readonly #pepper = randomBytes(32)

  constructor(max: number) {
    this.#cache = new LRUCache({ max })
  }

  get(accessKeyId: string, secret: string, scope: Scope): Buffer {
    const fields = JSON.stringify([accessKeyId, secret, scope.date, scope.region, scope.service])
    const entry = hmac(this.#pepper, fields).toString('base64')
    const found = this.#cache.get(entry)
    if (found !== undefined) return found
    const key = signingKey(secret, scope)
    this.#cache.set(entry, key)
    return key
  }
}

export interface PresignOptions {
  /** As the client will send it in `Host`: with the port where that is not the scheme's own. */
  readonly host: string
  readonly path: string
  readonly accessKeyId: string
  readonly secret: string
  readonly sessionToken: string | null
  readonly region: string
  readonly service: string
  readonly at: Date
  /** Null leaves `X-Amz-Expires` out, as the IoT SDKs do. */
  readonly expiresSeconds: number | null
}

/** A presigned request target for `GET`; the session token stands outside the signature, as the device gateway has it. */
export function presign(options: PresignOptions): string {
  const { host, path, accessKeyId, secret, sessionToken, expiresSeconds } = options
  const timestamp = timestampOf(options.at)
  const scope: Scope = { date: timestamp.slice(0, 8), region: options.region, service: options.service }
  const pairs: Pair[] = [
    ['X-Amz-Algorithm', ALGORITHM],
    ['X-Amz-Credential', encoded(`${accessKeyId}/${scopeText(scope)}`, 'text')],
    ['X-Amz-Date', timestamp],
    ...(expiresSeconds === null ? [] : [['X-Amz-Expires', String(expiresSeconds)] as const]),
    ['X-Amz-SignedHeaders', 'host'],
  ]
  const query = canonicalQuery(pairs)
  const request = canonicalRequest({
    method: 'GET',
    path,
    query,
    headers: `host:${host.toLowerCase()}\n`,
    signedHeaders: 'host',
    payloadHash: EMPTY_PAYLOAD_HASH,
  })
  const signature = sign(signingKey(secret, scope), timestamp, scope, request)
  const token = sessionToken === null ? '' : `&X-Amz-Security-Token=${encoded(sessionToken, 'text')}`
  return `${path}?${query}&X-Amz-Signature=${signature}${token}`
}

export function sha256Hex(bytes: string | Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}
