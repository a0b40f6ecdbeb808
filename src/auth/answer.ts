import type { FailureCode } from '../errors.ts'
import { formatPolicyIssue, type PolicyDocument, parsePolicyDocument } from '../policy/document.ts'
import { grantsOf } from '../policy/grants.ts'
import type { Grants } from '../policy/permit.ts'
import type { LifetimeRule } from '../registry/entries.ts'
import { CallFault } from './guard.ts'

/** What an authorizer said, checked. */
export type Answer = Yes | No

export interface Yes {
  readonly kind: 'yes'
  readonly principalId: string
  readonly attributes: Readonly<Record<string, string>>
  /** What its documents grant; null where `policies` names what the registry grants. */
  readonly grants: Grants | null
  readonly documents: readonly PolicyDocument[]
  readonly policies: readonly string[]
  readonly disconnectAfterMs: number
  /** Null: it need not be asked again. */
  readonly refreshAfterMs: number | null
}

export interface No {
  readonly kind: 'no'
  readonly code: FailureCode
  readonly detail: string
}

/** As `authorizer_calls_total` tells it. */
export const resultOf = (answer: Answer): 'allowed' | 'denied' => (answer.kind === 'yes' ? 'allowed' : 'denied')

export interface AnswerRules {
  readonly lifetimes: LifetimeRule
  /** The principal it must name; null where it is free to. */
  readonly principalId: string | null
}

/** AWS IoT Core developer guide, "Defining your Lambda function" for custom authentication. */
const LEAST_SECONDS = 300
const MOST_SECONDS = 86_400
export const DEFAULT_DISCONNECT_MS = MOST_SECONDS * 1_000
const MAX_DOCUMENTS = 10
const MAX_DOCUMENT_CHARS = 2_048
/** What of an issue is no word of the document itself, which the log is not to repeat. */
const KNOWN_PATH =
  /^(?:Version|Id|Statement)(?:\[\d+\])?(?:\.(?:Sid|Effect|Action|Resource|Condition)(?:\[\d+\])?)?(?![^.])/
const QUOTED = /^".*" /s

/** `isAuthenticated: false`, or HTTP 401 or 403. */
export const REFUSED: No = { kind: 'no', code: 'ERR_CREDENTIALS_REFUSED', detail: 'the authorizer says no' }

/**
 * Reads the answer of a webhook or a module. `true` is the only yes and `false` the only no; whatever does not keep to the
 * form is neither, for who makes one mistake may make another.
 *
 * @throws {CallFault} `unusable`
 */
export function readAnswer(answer: unknown, rules: AnswerRules): Answer {
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) throw unusable('the answer is no object')
  const said = answer as Readonly<Record<string, unknown>>
  if (said.isAuthenticated === false) return REFUSED
  if (said.isAuthenticated !== true) throw unusable('isAuthenticated is neither true nor false')

  const { principalId } = said
  if (typeof principalId !== 'string' || !/^[a-zA-Z0-9]{1,128}$/.test(principalId)) {
    throw unusable('principalId is not 1–128 letters and digits')
  }
  if (rules.principalId !== null && principalId !== rules.principalId) {
    throw unusable('principalId is not the id of the certificate')
  }
  const documents = documentsOf(said.policyDocuments)
  return {
    kind: 'yes',
    principalId,
    attributes: {},
    documents,
    // No document, no permission.
    grants: grantsOf(documents),
    policies: [],
    disconnectAfterMs: lifetime(said, 'disconnectAfterInSeconds', rules.lifetimes) ?? DEFAULT_DISCONNECT_MS,
    refreshAfterMs: lifetime(said, 'refreshAfterInSeconds', rules.lifetimes),
  }
}

/** In milliseconds; null where nothing was said. */
function lifetime(said: Readonly<Record<string, unknown>>, name: string, rule: LifetimeRule): number | null {
  const seconds = said[name] ?? null
  if (seconds === null) return null
  if (typeof seconds !== 'number' || !Number.isInteger(seconds)) throw unusable(`${name} is no whole number`)
  const near = Math.min(Math.max(seconds, LEAST_SECONDS), MOST_SECONDS)
  if (near !== seconds && rule === 'refuse') throw unusable(`${name} is not within ${LEAST_SECONDS}…${MOST_SECONDS}`)
  return near * 1_000
}

function documentsOf(given: unknown): readonly PolicyDocument[] {
  const list = given ?? []
  if (!Array.isArray(list)) throw unusable('policyDocuments is no list')
  if (list.length > MAX_DOCUMENTS) throw unusable(`more than ${MAX_DOCUMENTS} policyDocuments`)
  return list.map((item: unknown, index) => {
    // Older authorizers send each as a text of JSON. One bad document spoils all: it may be the one that denies.
    const parsed = parsePolicyDocument(item, { maxChars: MAX_DOCUMENT_CHARS })
    if (parsed.kind === 'document') return parsed.document
    const { path, message } = parsed.issues[0] ?? { path: '', message: 'unreadable' }
    const issue = { path: KNOWN_PATH.exec(path)?.[0] ?? '', message: message.replace(QUOTED, '') }
    throw unusable(`policyDocuments[${index}]: ${formatPolicyIssue(issue)}`)
  })
}

/** One wrong answer does not say that the authorizer is unwell: see `CallFault.unwell`. */
function unusable(message: string): CallFault {
  return new CallFault('unusable', message.replace(/\s+/g, ' ').slice(0, 300), { unwell: false })
}
