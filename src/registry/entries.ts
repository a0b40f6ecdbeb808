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
  /** Header, query or username parameter that carries the token; null: none is looked for. */
  readonly tokenKeyName: string | null
  /** Public keys (RSA ≥ 2048) of which one must have signed the token; null: signing is off. */
  readonly signingKeys: readonly KeyObject[] | null
  /** Keep an answer for the requests of one persistent HTTP connection (`enableCachingForHttp`). */
  readonly cacheForHttp: boolean
  /** Answers may be shared between connections for so long, in ms; null: never. */
  readonly shareForMs: number | null
}

export type AuthorizerEntry =
  | (AuthorizerBase & {
      readonly kind: 'webhook'
      readonly url: URL
      /** PEM; null trusts the runtime's own list. */
      readonly ca: readonly string[] | null
      /** Sent with each call: the webhook's own credentials. */
      readonly headers: Readonly<Record<string, string>>
      /** For one whole call, at most 5 s by default. */
      readonly timeoutMs: number
    })
  | (AuthorizerBase & {
      readonly kind: 'jwt'
      /** One of the two is set. */
      readonly jwksUrl: URL | null
      readonly keys: readonly KeyObject[] | null
      /** PEM for `jwksUrl`; null trusts the runtime's own list. */
      readonly ca: readonly string[] | null
      readonly algorithms: readonly string[]
      readonly issuer: string | null
      readonly audience: string | null
      readonly tokenFrom: 'parameter' | 'password' | 'username'
      /** Claim that names the principal. */
      readonly principal: string
      readonly policies: readonly string[]
    })
  | (AuthorizerBase & {
      readonly kind: 'password'
      /** user → hash, as the file says */
      readonly users: ReadonlyMap<string, string>
      readonly policies: readonly string[]
    })
  | (AuthorizerBase & {
      readonly kind: 'module'
      /** Absolute path of an ES module. */
      readonly path: string
      readonly options: Readonly<Record<string, unknown>>
    })
