import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { SecuredConnection } from '../connection.ts'
import { type FailureCode, ProxyError } from '../errors.ts'
import { NO_GRANTS, NO_VARIABLES } from '../policy/permit.ts'
import { type AccessKey, NO_THINGS } from '../registry/entries.ts'
import type { Registry } from '../registry/registry.ts'
import { type Authenticator, type AuthOutcome, type Credentials, GONE, type HttpProof } from './authenticator.ts'
import { canonicalHeaders, canonicalPath, canonicalQuery, canonicalRequest } from './sigv4-canonical.ts'
import { fieldsOf, readSigned, type SignedRequest } from './sigv4-read.ts'
import { EMPTY_PAYLOAD_HASH, SigningKeys, sha256Hex, sign } from './sigv4-sign.ts'

export interface SigV4Options {
  /** Asked at every decision, so that a changed key counts at once; null: no key is known. */
  readonly registry: () => Registry | null
  readonly region: string
  /** Service names that a REST request may be signed for; on `/mqtt` it is `iotdevicegateway` alone. */
  readonly services: readonly string[]
  /** How far the clocks may be apart, in ms. */
  readonly clockSkewMs: number
  /** How long a presigned request counts at most, whatever `X-Amz-Expires` says, in ms. */
  readonly maxPresignAgeMs: number
  /** Accept signatures over a path that was percent-encoded once only. */
  readonly allowSingleEncodedPath: boolean
  /** Accept presigned queries whose session token was signed with the rest; AWS IoT does not. */
  readonly allowSignedToken: boolean
  readonly now?: () => Date
  /** Those that count by now for a connection that these let in; null: its domain or its way in is gone. Absent: these. */
  readonly inForce?: (connection: SecuredConnection) => SigV4Options | null
}

type Denial = Extract<AuthOutcome, { readonly kind: 'denied' }>

const UPGRADE_SERVICES: readonly string[] = ['iotdevicegateway']

/** `iotdevicegateway` by the guide, `iotdata` by the API model that generic SDK clients are made from. */
export const REST_SERVICES = {
  data: ['iotdevicegateway', 'iotdata'],
  jobs: ['iotdevicegateway', 'iotdata', 'iot-jobs-data'],
} as const

/** Derived keys that are kept: some hundred bytes each, and one day's use of a fleet's access keys. */
const CACHED_KEYS = 1_024

/**
 * AWS Signature Version 4 of an HTTP request, as query or as header: wire specification §3.
 *
 * Whether an access key is known, active or neither costs the same work and is told in the code alone, which the device
 * does not see. The session token stands outside the signature, so it is compared on its own.
 */
export function sigv4(options: SigV4Options): Authenticator<Extract<Credentials, { readonly kind: 'sigv4' }>> {
  const decide = judge(options)
  return {
    method: 'sigv4',
    async authenticate({ http }, connection) {
      try {
        return decide(http, connection)
      } catch (error) {
        // Whatever went wrong, nobody is admitted by it.
        throw new ProxyError('ERR_IDENTITY_FAULT', 'the signature could not be judged', { cause: error })
      }
    },
  }
}

function judge(options: SigV4Options): (http: HttpProof, connection: SecuredConnection) => AuthOutcome {
  const keys = new SigningKeys(CACHED_KEYS)
  // Apart, so that strangers with ever new ids cannot push the fleet's keys out.
  const decoys = new SigningKeys(CACHED_KEYS)
  const pepper = randomBytes(32)

  return (http, connection) => {
    const reading = readSigned(http)
    if (reading.kind === 'absent') return denied('ERR_CREDENTIALS_ABSENT', 'the request is not signed')
    if (reading.kind === 'malformed') return denied('ERR_CREDENTIALS_MALFORMED', reading.detail)
    const { request } = reading
    const unfit = scopeOf(options, http, request) ?? timeOf(options, request) ?? coverageOf(http, request)
    if (unfit !== null) return unfit
    const payloadHash = http.body === null ? EMPTY_PAYLOAD_HASH : sha256Hex(http.body)
    const headers = canonicalHeaders(http.rawHeaders, request.signedHeaders)
    if (headers === null) return mismatch('a signed header is not there')
    if (fieldsOf(http.rawHeaders, 'x-amz-content-sha256').some((hash) => hash.trim() !== payloadHash)) {
      return mismatch('x-amz-content-sha256 is not that of the body')
    }

    const { accessKeyId, scope } = request
    const known = activeKey(options, accessKeyId)
    const signingKey =
      known === null
        ? decoys.get(accessKeyId, createHmac('sha256', pepper).update(accessKeyId).digest('base64'), scope)
        : keys.get(accessKeyId, known.secret, scope)
    let fits = false
    for (const { path, query } of variants(options, request)) {
      const signed = { method: http.method, path, query, headers, signedHeaders: request.signedHeaders.join(';') }
      const signature = sign(signingKey, request.timestamp, scope, canonicalRequest({ ...signed, payloadHash }))
      // All of them are computed whichever fits.
      if (timingSafeEqual(Buffer.from(signature), Buffer.from(request.signature))) fits = true
    }
    if (known === null) return denied('ERR_ACCESS_KEY_UNKNOWN', 'no ACTIVE access key of this id')
    if (!fits) return mismatch('the signature does not fit the request')
    return tokenOf(known, request.sessionToken) ?? admitted(options, known, connection)
  }
}

/** Region, service and day that the key was derived for. */
function scopeOf(options: SigV4Options, http: HttpProof, request: SignedRequest): Denial | null {
  const { date, region, service } = request.scope
  // The routes decide by the path that is meant, so a name written with escapes is the same name here.
  const isUpgrade = http.body === null && canonicalPath(request.path, 'single') === '/mqtt'
  const services = isUpgrade ? UPGRADE_SERVICES : options.services
  if (region !== options.region) return mismatch('signed for another region')
  if (!services.includes(service)) return mismatch('signed for another service')
  if (date !== request.timestamp.slice(0, 8)) return mismatch('the credential is of another day than the date')
  if (!/^[0-9a-f]{64}$/.test(request.signature)) return mismatch('the signature is not 64 lower-case hex digits')
  return null
}

/** Written so that a time that is no number refuses. Wire specification §3.5. */
function timeOf(options: SigV4Options, request: SignedRequest): Denial | null {
  const nowMs = (options.now?.() ?? new Date()).getTime()
  const { signedAtMs, form, expiresSeconds } = request
  const asked = expiresSeconds === null ? options.maxPresignAgeMs : expiresSeconds * 1_000
  const ageMs = form === 'header' ? 0 : Math.min(asked, options.maxPresignAgeMs)
  const early = !(nowMs >= signedAtMs - options.clockSkewMs)
  const late = !(nowMs <= signedAtMs + ageMs + options.clockSkewMs)
  if (early) return denied('ERR_SIGNATURE_EXPIRED', 'signed for a later time')
  return late ? denied('ERR_SIGNATURE_EXPIRED', 'signed too long ago') : null
}

/**
 * Every `x-amz-…` header must be signed, or whoever holds a signed request could add some. The session token is the
 * exception that AWS IoT makes.
 */
function coverageOf(http: HttpProof, request: SignedRequest): Denial | null {
  const unsigned = http.rawHeaders.some((text, at) => {
    if (at % 2 === 1) return false
    const name = text.toLowerCase()
    return name.startsWith('x-amz-') && name !== 'x-amz-security-token' && !request.signedHeaders.includes(name)
  })
  return unsigned ? mismatch('an x-amz header is not signed') : null
}

/** What may have been signed: once by default, and more where the settings tolerate more. */
function* variants(options: SigV4Options, request: SignedRequest): Generator<{ path: string; query: string }> {
  const paths = new Set([canonicalPath(request.path, 'double')])
  if (options.allowSingleEncodedPath) paths.add(canonicalPath(request.path, 'single'))
  const queries = new Set([canonicalQuery(request.pairs)])
  if (options.allowSignedToken && request.tokenPair !== null) {
    queries.add(canonicalQuery([...request.pairs, request.tokenPair]))
  }
  for (const path of paths) for (const query of queries) yield { path, query }
}

function activeKey({ registry }: SigV4Options, id: string): AccessKey | null {
  const key = registry()?.accessKey(id) ?? null
  return key?.status === 'ACTIVE' ? key : null
}

function tokenOf(key: AccessKey, presented: string | null): Denial | null {
  const invalid = (detail: string) => denied('ERR_SESSION_TOKEN_INVALID', detail)
  if (key.sessionToken === null) {
    if (isTemporary(key)) return invalid('a temporary access key has no session token in the registry')
    return presented === null ? null : invalid('a session token for an access key that has none')
  }
  if (presented === null) return invalid('no session token')
  return isSame(presented, key.sessionToken) ? null : invalid('another session token')
}

/** IAM user guide, "unique identifiers": ids from the Security Token Service begin with ASIA. */
const isTemporary = ({ id }: AccessKey): boolean => id.startsWith('ASIA')

function admitted(options: SigV4Options, key: AccessKey, connection: SecuredConnection): AuthOutcome {
  const rejudge = (): AuthOutcome => judgeAgain(options, key, connection)
  return {
    kind: 'authenticated',
    principal: { id: key.id, method: 'sigv4', attributes: {} },
    grants: options.registry()?.grants(key.policies) ?? NO_GRANTS,
    variables: NO_VARIABLES,
    things: NO_THINGS,
    disconnectAfterMs: null,
    refreshAfterMs: null,
    refresh: async () => rejudge(),
    rejudge,
  }
}

/** The signature was judged at the door and may have expired since; the key must be the one that made it. */
function judgeAgain(before: SigV4Options, key: AccessKey, connection: SecuredConnection): AuthOutcome {
  try {
    const options = before.inForce === undefined ? before : before.inForce(connection)
    if (options === null) return GONE
    const now = activeKey(options, key.id)
    if (now === null) return denied('ERR_ACCESS_KEY_UNKNOWN', 'the access key is gone or not ACTIVE')
    if (!isSame(now.secret, key.secret)) return denied('ERR_AUTHORIZATION_ENDED', 'the access key has another secret')
    return tokenOf(now, key.sessionToken) ?? admitted(options, now, connection)
  } catch {
    return denied('ERR_IDENTITY_FAULT', 'the access key could not be looked up')
  }
}

/** By digests, which have one length: `timingSafeEqual` wants that, and the length of a secret is not told. */
function isSame(one: string, other: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(one), digest(other))
}

function mismatch(detail: string): Denial {
  return denied('ERR_SIGNATURE_MISMATCH', detail)
}

function denied(code: FailureCode, detail: string): Denial {
  return { kind: 'denied', code, detail }
}
