import { LRUCache } from 'lru-cache'
import type { PolicyDocument } from './document.ts'
import {
  type Action,
  type ArnHead,
  CLOSED_PERMIT,
  type Grants,
  NO_GRANTS,
  OPEN_GRANTS,
  type Permit,
  type Variables,
} from './permit.ts'
import { ActionRules, ALLOWED, DENIED, type Rule } from './rules.ts'
import { type CompiledResource, type CompiledStatement, compileStatement } from './statement.ts'
import { substitute } from './template.ts'
import { CONNECT_ONLY } from './variables.ts'

/** Permits kept for connections that come again with the same values. */
const MAX_PERMITS = 1_024
/** Values of which the text is longer, in characters, are not worth keeping: a client id may have 65,535. */
const MAX_KEY_CHARS = 4_096
/** Our configuration names few; a caller that makes them up shall not fill the memory. */
const MAX_HEADS = 64
/** Routes may ask for other actions than the five of the gate. */
const MAX_ACTIONS = 64

/** What the resources of an action start with; `allowsAll` speaks of these. */
const RESOURCE_TYPES: Readonly<Record<Action, string>> = {
  'iot:Connect': 'client/',
  'iot:Publish': 'topic/',
  'iot:RetainPublish': 'topic/',
  'iot:Subscribe': 'topicfilter/',
  'iot:Receive': 'topic/',
}

export interface GrantsOptions {
  /** Seconds since 1970, for conditions on the time. */
  readonly seconds?: () => number
}

/**
 * Compiles documents once. Resources without variables and conditions become tables that all connections share; what
 * depends on the connection is worked out in `permit`, once per set of values. No document, no permission; a statement
 * that cannot be compiled (it did not come from `parsePolicyDocument`) grants nothing, for it might be a Deny.
 */
export function grantsOf(documents: readonly PolicyDocument[], options: GrantsOptions = {}): Grants {
  if (documents.length === 0) return NO_GRANTS
  try {
    const statements = documents.flatMap((document) => document.statements.map(compileStatement))
    const grants = new CompiledGrants(statements, options.seconds ?? (() => Math.floor(Date.now() / 1000)))
    SOURCES.set(grants, documents)
    return grants
  } catch {
    return NO_GRANTS
  }
}

/** What grants were made of, so that they can be joined. */
const SOURCES = new WeakMap<Grants, readonly PolicyDocument[]>([
  [NO_GRANTS, []],
  [
    OPEN_GRANTS,
    [{ statements: [{ sid: null, effect: 'Allow', actions: ['*'], resources: ['*'], conditions: new Map() }] }],
  ],
])

/**
 * All documents of both as if they had been given together: a Deny of one counts against an Allow of the other, which
 * cannot be seen from their permits. Nothing is granted where one was not made here.
 */
export function joinGrants(one: Grants, other: Grants, options: GrantsOptions = {}): Grants {
  const [mine, theirs] = [SOURCES.get(one), SOURCES.get(other)]
  return mine === undefined || theirs === undefined ? NO_GRANTS : grantsOf([...mine, ...theirs], options)
}

/** A rule and the actions that it is for. */
interface TableRule extends Rule {
  covers(action: string): boolean
}

/** Rules by action, sorted out when an action is first asked for. */
class RuleTable {
  readonly #rules: readonly TableRule[]
  readonly #seconds: () => number
  readonly #byAction = new Map<string, ActionRules>()

  constructor(rules: readonly TableRule[], seconds: () => number) {
    this.#rules = rules
    this.#seconds = seconds
  }

  of(action: string): ActionRules {
    return this.#byAction.get(action) ?? this.#sort(action)
  }

  #sort(action: string): ActionRules {
    const rules = new ActionRules(
      this.#rules.filter((rule) => rule.covers(action)),
      this.#seconds,
    )
    if (this.#byAction.size < MAX_ACTIONS) this.#byAction.set(action, rules)
    return rules
  }
}

class CompiledPermit implements Permit {
  readonly unresolved: readonly string[]
  readonly timeless: boolean
  readonly #shared: RuleTable
  readonly #own: RuleTable

  constructor(shared: RuleTable, own: RuleTable, unresolved: readonly string[], timeless: boolean) {
    this.#shared = shared
    this.#own = own
    this.unresolved = unresolved
    this.timeless = timeless
  }

  allows(action: string, resource: string): boolean {
    const shared = this.#shared.of(action).verdict(resource)
    if (shared === DENIED) return false
    const own = this.#own.of(action).verdict(resource)
    return own !== DENIED && (shared === ALLOWED || own === ALLOWED)
  }

  allowsAll(action: Action): boolean {
    const shared = this.#shared.of(action)
    const own = this.#own.of(action)
    const prefix = RESOURCE_TYPES[action]
    return !shared.restricts && !own.restricts && (shared.allowsUnder(prefix) || own.allowsUnder(prefix))
  }
}

class CompiledGrants implements Grants {
  readonly #seconds: () => number
  readonly #shared: readonly CompiledStatement[]
  readonly #own: readonly CompiledStatement[]
  /** Whatever a permit depends on. */
  readonly #names: readonly string[]
  readonly #variables: readonly string[]
  readonly #timeless: boolean
  readonly #permits = new LRUCache<string, Permit>({ max: MAX_PERMITS })
  readonly #tables = new LRUCache<string, RuleTable>({ max: MAX_HEADS })

  constructor(statements: readonly CompiledStatement[], seconds: () => number) {
    this.#seconds = seconds
    this.#timeless = statements.every(({ live }) => live.length === 0)
    const parts = statements.map(divide)
    this.#shared = parts.map(({ shared }) => shared)
    this.#own = parts.map(({ own }) => own).filter(({ resources }) => resources.length > 0)
    const conditions = this.#own.flatMap(({ fixed }) => fixed)
    this.#variables = distinct([
      ...this.#own.flatMap(({ resources }) => resources.flatMap(({ variables }) => variables)),
      ...conditions.flatMap(({ variables }) => variables),
    ])
    this.#names = distinct([...this.#variables, ...conditions.map(({ key }) => key)])
  }

  permit(arn: ArnHead, variables: Variables): Permit {
    try {
      return this.#permit(arn, variables)
    } catch {
      // A look-up that throws tells nothing of a Deny that may hang on it.
      return CLOSED_PERMIT
    }
  }

  #permit(arn: ArnHead, variables: Variables): Permit {
    const values = this.#names.map((name) => variables.lookup(name))
    const head = JSON.stringify([arn.partition, arn.region, arn.accountId])
    const key = `${head}${JSON.stringify(values)}`
    const known = this.#permits.get(key)
    if (known !== undefined) return known
    const byName = new Map(this.#names.map((name, n) => [name, values[n]!]))
    const permit = this.#build(arn, head, { lookup: (name) => byName.get(name) ?? null })
    if (key.length <= MAX_KEY_CHARS) this.#permits.set(key, permit)
    return permit
  }

  #build(arn: ArnHead, head: string, variables: Variables): Permit {
    let shared = this.#tables.get(head)
    if (shared === undefined) {
      shared = this.#table(this.#shared, arn, variables)
      this.#tables.set(head, shared)
    }
    const unresolved = this.#variables.filter((name) => substitute(name, variables) === null)
    return new CompiledPermit(shared, this.#table(this.#own, arn, variables), unresolved, this.#timeless)
  }

  #table(statements: readonly CompiledStatement[], arn: ArnHead, variables: Variables): RuleTable {
    const rules = statements.flatMap((statement) => rulesOf(statement, arn, variables))
    return new RuleTable(rules, this.#seconds)
  }
}

/** The resources that are the same for every connection, and those that are not. */
function divide(statement: CompiledStatement): { readonly shared: CompiledStatement; readonly own: CompiledStatement } {
  const constant = ({ variables }: CompiledResource) => statement.fixed.length === 0 && variables.length === 0
  return {
    shared: { ...statement, resources: statement.resources.filter(constant) },
    own: { ...statement, resources: statement.resources.filter((resource) => !constant(resource)) },
  }
}

function rulesOf(statement: CompiledStatement, arn: ArnHead, variables: Variables): readonly TableRule[] {
  const applies = scopeOf(statement, variables)
  if (applies === null) return []
  const { effect, live } = statement
  const covers = (action: string): boolean => applies(action) && statement.covers(action)
  return statement.resources.flatMap((resource) => {
    const pattern = resource.inScope(arn) ? resource.pattern(variables) : null
    return pattern === null ? [] : [{ effect, pattern, live, covers }]
  })
}

/** For which actions the conditions hold; null: for none. */
function scopeOf({ fixed }: CompiledStatement, variables: Variables): ((action: string) => boolean) | null {
  const onConnect = fixed.every((condition) => condition.holds(variables))
  if (!fixed.some(({ connectOnly }) => connectOnly)) return onConnect ? () => true : null
  const elsewhere = withoutConnect(variables)
  const onRest = fixed.every((condition) => condition.holds(elsewhere))
  if (!onConnect && !onRest) return null
  return (action) => (action.toLowerCase() === 'iot:connect' ? onConnect : onRest)
}

/** What is known when another action than `iot:Connect` is judged. */
export function withoutConnect(variables: Variables): Variables {
  return { lookup: (name) => (CONNECT_ONLY.has(name) ? null : variables.lookup(name)) }
}

function distinct(names: readonly string[]): readonly string[] {
  return [...new Set(names)]
}
