import { ACTION, splitArn } from './arn.ts'
import { compileCondition, operatorName } from './conditions.ts'
import { duplicateKey } from './json.ts'
import { parseTemplate } from './template.ts'

/** One statement of an AWS IoT policy document, checked. */
export interface Statement {
  readonly sid: string | null
  readonly effect: 'Allow' | 'Deny'
  readonly actions: readonly string[]
  readonly resources: readonly string[]
  /** operator → key → values */
  readonly conditions: ReadonlyMap<string, ReadonlyMap<string, readonly string[]>>
}

export interface PolicyDocument {
  readonly statements: readonly Statement[]
}

export interface PolicyIssue {
  /** Such as `Statement[0].Effect`; empty for the whole document. */
  readonly path: string
  readonly message: string
}

export type PolicyParse =
  | { readonly kind: 'document'; readonly document: PolicyDocument }
  | { readonly kind: 'invalid'; readonly issues: readonly PolicyIssue[] }

export interface PolicyLimits {
  /** Characters of the document as JSON without white space; AWS IoT allows 2048, this 65,536 when nothing else is said. */
  readonly maxChars?: number
}

const MAX_CHARS = 65_536
/** Of the text as it came, white space and all: before it is parsed. */
const MAX_TEXT_CHARS = 1_048_576
/** Enough to mend a document by; a hostile one shall not fill the log. */
const MAX_ISSUES = 32

/**
 * The only version that has variables: under `2008-10-17` `${iot:ClientId}` would be nine letters in a topic, so it is refused
 * like any other (AWS IoT developer guide, "policy elements": must be 2012-10-17).
 */
const VERSION = '2012-10-17'
const DOCUMENT_KEYS: ReadonlySet<string> = new Set(['Version', 'Id', 'Statement'])
const STATEMENT_KEYS: ReadonlySet<string> = new Set(['Sid', 'Effect', 'Action', 'Resource', 'Condition'])

/** Elements of other policy languages, and what to write here. */
const FOREIGN: Readonly<Record<string, string>> = {
  Principal: 'an AWS IoT policy has none: it belongs to what it is attached to',
  NotPrincipal: 'an AWS IoT policy has none: it belongs to what it is attached to',
  NotAction: 'not in the grammar of AWS IoT policies; write Allow for all and Deny for the exceptions',
  NotResource: 'not in the grammar of AWS IoT policies; write Allow for all and Deny for the exceptions',
}

/**
 * Reads a policy document, as JSON or as what JSON.parse made of it. Strict, for a rule that is not understood cannot be
 * obeyed: one issue, and the document is none. Never throws.
 */
export function parsePolicyDocument(input: unknown, limits: PolicyLimits = {}): PolicyParse {
  const reader = new Reader()
  let document: PolicyDocument | null = null
  try {
    document = reader.document(input, limits.maxChars ?? MAX_CHARS)
  } catch {
    // A hostile object: a cycle, a getter that throws, depth beyond the stack.
    reader.issue('', 'cannot be read')
  }
  if (document === null || reader.issues.length > 0) return { kind: 'invalid', issues: reader.issues }
  return { kind: 'document', document }
}

/** `policies/devices.json: Statement[0].Effect: must be Allow or Deny` without the file. */
export function formatPolicyIssue({ path, message }: PolicyIssue): string {
  return path === '' ? message : `${path}: ${message}`
}

class Reader {
  readonly issues: PolicyIssue[] = []

  issue(path: string, message: string): null {
    if (this.issues.length < MAX_ISSUES) this.issues.push({ path, message })
    return null
  }

  document(input: unknown, maxChars: number): PolicyDocument | null {
    const value = typeof input === 'string' ? this.#json(input) : input
    if (value === null || value === undefined) return this.#absent(input)
    if (!isRecord(value)) return this.issue('', 'must be an object')
    const chars = JSON.stringify(value).length
    if (chars > maxChars) return this.issue('', `has ${chars} characters without white space; ${maxChars} are allowed`)
    this.#keys(value, '', DOCUMENT_KEYS)
    if (value.Version !== VERSION) this.issue('Version', `must be "${VERSION}"`)
    if (value.Id !== undefined && typeof value.Id !== 'string') this.issue('Id', 'must be a string')
    const { Statement: given } = value
    const list = Array.isArray(given) ? given : [given]
    if (list.length === 0) return this.issue('Statement', 'must hold at least one statement')
    const statements: Statement[] = []
    for (const [index, item] of list.entries()) {
      const statement = this.#statement(item, Array.isArray(given) ? `Statement[${index}]` : 'Statement')
      if (statement !== null) statements.push(statement)
    }
    return { statements }
  }

  #json(text: string): unknown {
    if (text.length > MAX_TEXT_CHARS) return this.issue('', `has more than ${MAX_TEXT_CHARS} characters`)
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch {
      return this.issue('', 'is not JSON')
    }
    // JSON.parse takes the last of two; whoever wrote the first would wonder.
    const twice = duplicateKey(text)
    if (twice !== null) this.issue('', `"${twice.slice(0, 64)}" stands twice in one object`)
    return value
  }

  #absent(input: unknown): null {
    // A string has been reported already unless it is `null` itself.
    return this.issues.length > 0 && typeof input === 'string' ? null : this.issue('', 'must be an object')
  }

  #statement(value: unknown, path: string): Statement | null {
    if (!isRecord(value)) return this.issue(path, 'must be an object')
    this.#keys(value, `${path}.`, STATEMENT_KEYS)
    const { Sid: sid, Effect: effect } = value
    if (sid !== undefined && typeof sid !== 'string') this.issue(`${path}.Sid`, 'must be a string')
    if (effect !== 'Allow' && effect !== 'Deny') return this.issue(`${path}.Effect`, 'must be "Allow" or "Deny"')
    return {
      sid: typeof sid === 'string' ? sid : null,
      effect,
      actions: this.#strings(value.Action, `${path}.Action`, actionProblem),
      resources: this.#strings(value.Resource, `${path}.Resource`, resourceProblem),
      conditions: this.#conditions(value.Condition, `${path}.Condition`, effect),
    }
  }

  #strings(value: unknown, path: string, problemOf: (text: string) => string | null): readonly string[] {
    const list: readonly unknown[] = Array.isArray(value) ? value : [value]
    if (list.length === 0) this.issue(path, 'must hold at least one string')
    const strings: string[] = []
    for (const [index, item] of list.entries()) {
      const at = Array.isArray(value) ? `${path}[${index}]` : path
      const problem = typeof item === 'string' ? problemOf(item) : 'must be a string'
      if (problem !== null) this.issue(at, problem)
      else strings.push(item as string) // a string: problemOf was asked
    }
    return strings
  }

  #conditions(value: unknown, path: string, effect: 'Allow' | 'Deny'): Statement['conditions'] {
    const conditions = new Map<string, ReadonlyMap<string, readonly string[]>>()
    if (value === undefined) return conditions
    if (!isRecord(value)) {
      this.issue(path, 'must be an object')
      return conditions
    }
    for (const [operator, keys] of Object.entries(value)) {
      const at = `${path}.${operator.slice(0, 64)}`
      const name = operatorName(operator)
      if (name === null) this.issue(at, 'no such operator')
      else if (conditions.has(name.spelling)) this.issue(at, 'stands twice')
      else if (!isRecord(keys)) this.issue(at, 'must be an object')
      else conditions.set(name.spelling, this.#keysOf(name.spelling, keys, at, effect))
    }
    return conditions
  }

  #keysOf(
    operator: string,
    keys: Record<string, unknown>,
    path: string,
    effect: 'Allow' | 'Deny',
  ): ReadonlyMap<string, readonly string[]> {
    const compiled = new Map<string, readonly string[]>()
    for (const [key, value] of Object.entries(keys)) {
      const at = `${path}.${key.slice(0, 128)}`
      const values = this.#values(value, at)
      const parse = compileCondition(operator, key, values, effect)
      if (parse.kind === 'invalid') {
        this.issue(parse.value === null || !Array.isArray(value) ? at : `${at}[${parse.value}]`, parse.message)
      }
      compiled.set(key, values)
    }
    return compiled
  }

  /** JSON's own numbers and booleans are what their text is. */
  #values(value: unknown, path: string): readonly string[] {
    const list: readonly unknown[] = Array.isArray(value) ? value : [value]
    const values: string[] = []
    for (const [index, item] of list.entries()) {
      if (typeof item === 'string' || typeof item === 'boolean' || Number.isFinite(item)) values.push(String(item))
      else this.issue(Array.isArray(value) ? `${path}[${index}]` : path, 'must be a string, a number or a boolean')
    }
    return values
  }

  #keys(value: Record<string, unknown>, path: string, known: ReadonlySet<string>): void {
    for (const key of Object.keys(value)) {
      if (known.has(key)) continue
      this.issue(`${path}${key.slice(0, 64)}`, Object.hasOwn(FOREIGN, key) ? FOREIGN[key]! : 'no such element')
    }
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function actionProblem(text: string): string | null {
  return ACTION.test(text) ? null : 'is neither "*" nor of the form "iot:Publish"'
}

function resourceProblem(text: string): string | null {
  if (text === '*') return null
  const arn = splitArn(text)
  if (arn === null || arn.partition === '' || !/^[a-z0-9-]+$/.test(arn.service)) {
    return 'is neither "*" nor of the form "arn:aws:iot:<region>:<account>:<resource>"'
  }
  const parse = parseTemplate(arn.resource, true)
  return parse.kind === 'invalid' ? parse.message : null
}
