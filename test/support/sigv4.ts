import type { HttpProof } from '../../src/auth/authenticator.ts'
import { REST_SERVICES, type SigV4Options, sigv4 } from '../../src/auth/sigv4.ts'
import {
  canonicalHeaders,
  canonicalPath,
  canonicalQuery,
  canonicalRequest,
  readQuery,
  splitTarget,
} from '../../src/auth/sigv4-canonical.ts'
import { type PresignOptions, presign, sha256Hex, sign, signingKey } from '../../src/auth/sigv4-sign.ts'
import { OPEN_GRANTS } from '../../src/policy/permit.ts'
import type { AccessKey } from '../../src/registry/entries.ts'
import { createRegistry } from '../../src/registry/registry.ts'

export const HOST = 'iot.example.com'
export const SECRET = 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'
export const TOKEN = 'FwoGZXIvYXdzE+/token=='
export const SIGNED_AT = new Date('2015-08-30T12:36:00Z')
const DATE = '20150830'
const TIMESTAMP = '20150830T123600Z'

export const KEYS: readonly AccessKey[] = [
  { id: 'AKIDEXAMPLE', secret: SECRET, sessionToken: null, status: 'ACTIVE', policies: ['devices'] },
  { id: 'AKIDINACTIVE', secret: SECRET, sessionToken: null, status: 'INACTIVE', policies: ['devices'] },
  { id: 'ASIAEXAMPLE', secret: SECRET, sessionToken: TOKEN, status: 'ACTIVE', policies: ['devices'] },
  { id: 'ASIATOKENLESS', secret: SECRET, sessionToken: null, status: 'ACTIVE', policies: ['devices'] },
]

export const registryOf = (keys: readonly AccessKey[]) =>
  createRegistry([], { accessKey: (id) => keys.find((key) => key.id === id) ?? null, grants: () => OPEN_GRANTS })

export function optionsOf(changes: Partial<SigV4Options> = {}): SigV4Options {
  const registry = registryOf(KEYS)
  return {
    registry: () => registry,
    region: 'us-east-1',
    services: REST_SERVICES.data,
    clockSkewMs: 300_000,
    maxPresignAgeMs: 300_000,
    allowSingleEncodedPath: false,
    allowSignedToken: false,
    now: () => SIGNED_AT,
    ...changes,
  }
}

export const verifier = (changes: Partial<SigV4Options> = {}) => sigv4(optionsOf(changes))

/** An upgrade with a presigned target. */
export function upgrade(changes: Partial<PresignOptions> = {}, rawHeaders?: readonly string[]): HttpProof {
  const options: PresignOptions = {
    host: HOST,
    path: '/mqtt',
    accessKeyId: 'AKIDEXAMPLE',
    secret: SECRET,
    sessionToken: null,
    region: 'us-east-1',
    service: 'iotdevicegateway',
    at: SIGNED_AT,
    expiresSeconds: null,
    ...changes,
  }
  return { method: 'GET', target: presign(options), rawHeaders: rawHeaders ?? ['Host', options.host], body: null }
}

export interface HeaderSigned {
  readonly method?: string
  readonly target?: string
  /** Beside Host and the date. */
  readonly headers?: readonly string[]
  /** Instead of `X-Amz-Date: …`. */
  readonly date?: readonly string[]
  readonly signedHeaders?: string
  readonly accessKeyId?: string
  readonly secret?: string
  readonly service?: string
  readonly region?: string
  readonly body?: Uint8Array
  readonly encoding?: 'double' | 'single'
  readonly host?: string
}

/** A REST request signed in its headers. */
export function posted(changes: HeaderSigned = {}): HttpProof {
  const {
    method = 'POST',
    target = '/topics/device%2Fmessage?qos=1',
    headers = [],
    date = ['X-Amz-Date', TIMESTAMP],
    signedHeaders = 'host;x-amz-date',
    accessKeyId = 'AKIDEXAMPLE',
    secret = SECRET,
    service = 'iotdata',
    region = 'us-east-1',
    body = Buffer.from('{"message":"Hello"}'),
    encoding = 'double',
    host = HOST,
  } = changes
  const { path, query } = splitTarget(target)!
  const rawHeaders = ['Host', host, ...date, ...headers]
  const request = canonicalRequest({
    method,
    path: canonicalPath(path, encoding),
    query: canonicalQuery(readQuery(query)!),
    headers: canonicalHeaders(rawHeaders, signedHeaders.split(';')) ?? '',
    signedHeaders,
    payloadHash: sha256Hex(body),
  })
  const scope = { date: DATE, region, service }
  const signature = sign(signingKey(secret, scope), TIMESTAMP, scope, request)
  const authorization =
    `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${DATE}/${region}/${service}/aws4_request, ` +
    `SignedHeaders=${signedHeaders}, Signature=${signature}`
  return { method, target, rawHeaders: [...rawHeaders, 'Authorization', authorization], body }
}
