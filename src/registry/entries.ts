import type { KeyObject } from 'node:crypto'

/** What a registry says of authorizers and access keys, read and checked; nothing here runs. */

/** A registry thing, as policy variables and events see it. */
export interface Thing {
  readonly name: string
  readonly typeName: string | null
  readonly attributes: Readonly<Record<string, string>>
}

export interface Things {
  /** The thing of a connection (AWS IoT developer guide, "exclusive thing"): the exclusive one, else the attached one named as the client id. */
  of(clientId: string): Thing | null
  /** Set when the association is exclusive: then `thingName` stands in lifecycle events. */
  readonly exclusive: Thing | null
}

export const NO_THINGS: Things = { of: () => null, exclusive: null }
export interface AccessKey {
  /** `AKIA…` and the like; temporary ones start with `ASIA`. */
  readonly id: string
  readonly secret: string
  /** Set: the device must send exactly this token. Null: it must send none. */
  readonly sessionToken: string | null
  readonly status: 'ACTIVE' | 'INACTIVE'
  readonly policies: readonly string[]
}

interface AuthorizerBase {
  /** `[\w=,@-]+`, 1–128: AWS IoT CreateAuthorizer. */
  readonly name: string
  readonly status: 'ACTIVE' | 'INACTIVE'
  /** Hash over all that the entry says, contents of its files included: what was learned under another is forgotten. */
  readonly digest: string
  /** Header, query or username parameter that carries the token; null: none is looked for. */
  readonly tokenKeyName: string | null
  /** Public keys (RSA ≥ 2048) of which one must have signed the token; null: signing is off. */
  readonly signingKeys: readonly KeyObject[] | null
  /** Keep an answer for the requests of one persistent HTTP connection (`enableCachingForHttp`). */
  readonly cacheForHttp: boolean
  /** Answers may be shared between connections for so long, in ms; null: never. */
  readonly shareForMs: number | null
  /** For one whole decision, at most 5 s. */
  readonly timeoutMs: number
  /** Most calls at once in one process. */
  readonly concurrency: number
}

/** What is done with an answer whose lifetimes are outside of 300…86400 s. */
export type LifetimeRule = 'refuse' | 'clamp'

export type AuthorizerEntry =
  | (AuthorizerBase & {
      readonly kind: 'webhook'
      readonly url: URL
      /** PEM; null trusts the runtime's own list. */
      readonly ca: readonly string[] | null
      /** Sent with each call: the webhook's own credentials. */
      readonly headers: Readonly<Record<string, string>>
      readonly lifetimes: LifetimeRule
    })
  | (AuthorizerBase & {
      readonly kind: 'jwt'
      /** One of the two is set. */
      readonly jwksUrl: URL | null
      readonly keys: readonly KeyObject[] | null
      /** PEM for `jwksUrl`; null trusts the runtime's own list. */
      readonly ca: readonly string[] | null
      /** JWS names of signatures with public keys; HMAC and `none` are none. */
      readonly algorithms: readonly string[]
      /** Null: said to be unchecked. */
      readonly issuer: string | null
      readonly audience: string | null
      readonly tokenFrom: 'parameter' | 'password' | 'username'
      /** Claim that names the principal. */
      readonly principal: string
      readonly policies: readonly string[]
    })
  | (AuthorizerBase & {
      readonly kind: 'password'
      readonly users: ReadonlyMap<string, PasswordHash>
      readonly policies: readonly string[]
    })
  | (AuthorizerBase & {
      readonly kind: 'module'
      /** Absolute path of an ES module. */
      readonly path: string
      readonly options: Readonly<Record<string, unknown>>
      readonly lifetimes: LifetimeRule
    })

/** A line of a password file, read. */
export type PasswordHash =
  | { readonly kind: 'pbkdf2-sha512'; readonly iterations: number; readonly salt: Buffer; readonly hash: Buffer }
  | {
      readonly kind: 'scrypt'
      /** CPU and memory cost, a power of two (RFC 7914 §2). */
      readonly cost: number
      readonly blockSize: number
      readonly parallelization: number
      readonly salt: Buffer
      readonly hash: Buffer
    }
