import type { KeyObject } from 'node:crypto'
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  decodeProtectedHeader,
  errors,
  type JWTPayload,
  type JWTVerifyOptions,
  jwtVerify,
} from 'jose'
import { suits } from '../registry/authorizer-reader.ts'
import { type Answer, DEFAULT_DISCONNECT_MS, type No, type Yes } from './answer.ts'
import type { Asked, AskedDeps, EntryOf } from './authorizer.ts'
import { guard } from './guard.ts'
import { httpsCall } from './https-call.ts'
import { type FoundToken, tokenOf } from './parameters.ts'
import type { Question } from './question.ts'
import { jsonOf } from './webhook.ts'

/** Clocks of issuer and proxy may differ by so much. */
const CLOCK_TOLERANCE_SECONDS = 10
/** A key set is asked for again after this, and no sooner than `COOLDOWN_MS` for a key that it does not have. */
const KEEP_KEYS_MS = 600_000
const COOLDOWN_MS = 30_000
/** Of several keys that fit a token without `kid`, so many are tried. */
const MAX_KEYS = 10
const MAX_ATTRIBUTES = 32
const MAX_ATTRIBUTE_CHARACTERS = 256

/**
 * Checks a JSON Web Token (RFC 7519; RFC 8725 for what must not be believed).
 *
 * - Algorithms are those of the configuration, never those of the token; HMAC and `none` cannot be configured.
 * - Keys come from the configuration or from its key set; `jku`, `x5u`, `jwk` and the like are not followed, and `kid`
 *   only picks among the keys that are there.
 * - `exp` must be there, `iss` and `aud` must be those of the configuration; `nbf` counts where it stands.
 * - Errors: ERR_AUTHORIZER_UNAVAILABLE when the key set is needed and cannot be had.
 */
export function jwt(entry: EntryOf<'jwt'>, deps: AskedDeps): Asked {
  const { algorithms, issuer, audience, principal } = entry
  const keys = keysOf(entry, deps)
  const options = (): JWTVerifyOptions => ({
    algorithms: [...algorithms],
    ...(issuer !== null && { issuer }),
    ...(audience !== null && { audience }),
    requiredClaims: ['exp', principal],
    clockTolerance: CLOCK_TOLERANCE_SECONDS,
    currentDate: new Date(deps.wallClock()),
  })
  return {
    async ask(question, signal) {
      const found = tokenFor(entry, question)
      if (found.kind === 'malformed') return no('ERR_CREDENTIALS_MALFORMED', found.detail)
      if (found.value === null) return no('ERR_CREDENTIALS_ABSENT', 'no token')
      const checked = await keys.verify(found.value.text, options(), signal)
      return checked.kind === 'no' ? checked : yes(checked.payload, entry, deps.wallClock())
    },
    problem: async () => null,
    close: () => keys.close(),
  }
}

type Checked = { readonly kind: 'claims'; readonly payload: JWTPayload } | No

interface Keys {
  verify(token: string, options: JWTVerifyOptions, signal: AbortSignal): Promise<Checked>
  close(): void
}

function keysOf(entry: EntryOf<'jwt'>, deps: AskedDeps): Keys {
  return entry.jwksUrl === null ? staticKeys(entry.keys ?? []) : remoteKeys(entry, entry.jwksUrl, deps)
}

/** Every key that is of the token's kind is tried: without a `kid` nothing says which one it was. */
function staticKeys(keys: readonly KeyObject[]): Keys {
  return {
    async verify(token, options) {
      let last: No = no('ERR_CREDENTIALS_REFUSED', 'no key of the authorizer is of the kind that the token needs')
      const algorithm = algorithmOf(token)
      if (algorithm === null || !options.algorithms?.includes(algorithm)) return refusal(ALGORITHM)
      for (const key of keys.filter((one) => suits(one, algorithm))) {
        const checked = await jwtVerify(token, key, options).then(claims, (error: unknown) => refusal(error))
        // A claim that is wrong is so for every key: the signature was right.
        if (checked.kind === 'claims' || checked !== SIGNATURE_REFUSAL) return checked
        last = checked
      }
      return last
    },
    close() {},
  }
}

function remoteKeys(entry: EntryOf<'jwt'>, url: URL, deps: AskedDeps): Keys {
  const { name, ca, timeoutMs, concurrency } = entry
  const guarded = guard({ name, timeoutMs, concurrency, ...deps })
  const call = httpsCall({ url, method: 'GET', ca, headers: {}, connections: 1 })
  // One fetch serves all who wait for it, so no device that leaves may end it; its own deadline does.
  const everybody = new AbortController().signal
  const set = createRemoteJWKSet(url, {
    cacheMaxAge: KEEP_KEYS_MS,
    cooldownDuration: COOLDOWN_MS,
    // Ours is the deadline; theirs only has to come later.
    timeoutDuration: timeoutMs + 1_000,
    [customFetch]: () =>
      guarded.run(async (ending) => {
        const jwks = jsonOf(await call.send(null, ending))
        // Looked at here, so that a broken set is a fault of the issuer, which the circuit breaker counts.
        createLocalJWKSet(jwks as Parameters<typeof createLocalJWKSet>[0])
        return Response.json(jwks)
      }, everybody),
  })
  return {
    async verify(token, options, signal) {
      return leaves(signal, jwtVerify(token, set, options)).then(claims, async (error: unknown) => {
        if (!(error instanceof errors.JWKSMultipleMatchingKeys)) return refusal(error)
        let tried = 0
        let last: No = SIGNATURE_REFUSAL
        for await (const key of error) {
          if (++tried > MAX_KEYS) break
          const checked = await jwtVerify(token, key, options).then(claims, (again: unknown) => refusal(again))
          if (checked.kind === 'claims' || checked !== SIGNATURE_REFUSAL) return checked
          last = checked
        }
        return last
      })
    },
    close: () => call.close(),
  }
}

/** The device need not wait for keys that are fetched for everybody. */
function leaves<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    work.finally(() => signal.removeEventListener('abort', onAbort)).then(resolve, reject)
    if (signal.aborted) onAbort()
  })
}

const claims = ({ payload }: { readonly payload: JWTPayload }): Checked => ({ kind: 'claims', payload })

function algorithmOf(token: string): string | null {
  try {
    return decodeProtectedHeader(token).alg ?? null
  } catch {
    return null
  }
}

const ALGORITHM = new errors.JOSEAlgNotAllowed('the token has an algorithm that does not count here')
const SIGNATURE_REFUSAL: No = {
  kind: 'no',
  code: 'ERR_CREDENTIALS_REFUSED',
  detail: 'no key of the authorizer made the signature of the token',
}

/** What `jose` says of the token itself; everything else it says is about us or the issuer. */
const ABOUT_THE_TOKEN: ReadonlySet<string> = new Set([
  errors.JOSEAlgNotAllowed.code,
  errors.JOSENotSupported.code,
  errors.JWSInvalid.code,
  errors.JWTInvalid.code,
  errors.JWTExpired.code,
  errors.JWTClaimValidationFailed.code,
  errors.JWKSNoMatchingKey.code,
])

/** @throws what is no fault of the token */
function refusal(error: unknown): No {
  if (error instanceof errors.JWSSignatureVerificationFailed) return SIGNATURE_REFUSAL
  if (error instanceof errors.JOSEError && ABOUT_THE_TOKEN.has(error.code)) {
    return no('ERR_CREDENTIALS_REFUSED', `the token: ${error.message.replace(/\s+/g, ' ').slice(0, 200)}`)
  }
  throw error
}

function no(code: No['code'], detail: string): No {
  return { kind: 'no', code, detail }
}

function tokenFor({ tokenFrom }: EntryOf<'jwt'>, { mqtt, parameters, token }: Question): FoundToken {
  if (tokenFrom === 'parameter') {
    // The one header that has a scheme before its token: RFC 6750 §2.1.
    return tokenOf(Buffer.from(token?.text.replace(/^bearer +/i, '') ?? ''))
  }
  if (mqtt !== null) {
    const given = tokenFrom === 'password' ? mqtt.password : parameters.user
    return tokenOf(given === null ? Buffer.alloc(0) : Buffer.from(given))
  }
  const basic = parameters.basic()
  if (basic.kind === 'malformed') return basic
  const given = tokenFrom === 'password' ? basic.value?.password : basic.value?.user
  return tokenOf(Buffer.from(given ?? ''))
}

function yes(payload: JWTPayload, entry: EntryOf<'jwt'>, nowMs: number): Answer {
  const principalId = Object.hasOwn(payload, entry.principal) ? payload[entry.principal] : null
  // Goes to logs, and by templates to the broker.
  if (typeof principalId !== 'string' || !/^[\x21-\x7e]{1,128}$/.test(principalId)) {
    return no('ERR_CREDENTIALS_REFUSED', `the claim ${entry.principal} is not 1–128 visible ASCII characters`)
  }
  const leftMs = Math.ceil((payload.exp! + CLOCK_TOLERANCE_SECONDS) * 1_000 - nowMs)
  const answer: Yes = {
    kind: 'yes',
    principalId,
    attributes: attributesOf(payload),
    documents: [],
    grants: null,
    policies: entry.policies,
    disconnectAfterMs: Math.min(Math.max(leftMs, 0), DEFAULT_DISCONNECT_MS),
    refreshAfterMs: null,
  }
  return answer
}

/** Claims that are short texts of visible characters and spaces, under names that a template can have. */
function attributesOf(payload: JWTPayload): Readonly<Record<string, string>> {
  const attributes: Record<string, string> = Object.create(null)
  let count = 0
  for (const [name, value] of Object.entries(payload)) {
    if (typeof value !== 'string' || value.length > MAX_ATTRIBUTE_CHARACTERS || /\p{C}/u.test(value)) continue
    if (!/^[A-Za-z][\w.:-]{0,63}$/.test(name) || ++count > MAX_ATTRIBUTES) continue
    attributes[name] = value
  }
  return attributes
}
