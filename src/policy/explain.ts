import type { Condition } from './conditions.ts'
import type { PolicyDocument, Statement } from './document.ts'
import { withoutConnect } from './grants.ts'
import { matches, type Pattern } from './pattern.ts'
import type { ArnHead, Variables } from './permit.ts'
import { type CompiledResource, type CompiledStatement, compileStatement } from './statement.ts'
import { substitute } from './template.ts'

export interface Question {
  readonly arn: ArnHead
  readonly variables: Variables
  readonly action: string
  /** The tail of the ARN, as `Permit.allows` takes it. */
  readonly resource: string
  /** Since 1970, for conditions on the time. */
  readonly seconds: number
}

export interface StatementReport {
  readonly document: number
  readonly statement: number
  readonly sid: string | null
  readonly effect: Statement['effect']
  readonly applies: boolean
  /** What made it apply, or the first thing that kept it from applying. */
  readonly reasons: readonly string[]
}

export interface Explanation {
  readonly allowed: boolean
  readonly statements: readonly StatementReport[]
}

/**
 * Decides as a permit does, statement by statement and in words. It shares how statements are compiled and compared; how the
 * parts are put together is done here anew, and a test holds the two to one answer.
 * @throws {RangeError} for a document that did not come from `parsePolicyDocument`
 */
export function explain(documents: readonly PolicyDocument[], question: Question): Explanation {
  const statements = documents.flatMap((document, d) =>
    document.statements.map((source, s): StatementReport => {
      const { applies, reasons } = judge(compileStatement(source), source, question)
      return { document: d, statement: s, sid: source.sid, effect: source.effect, applies, reasons }
    }),
  )
  const applying = statements.filter(({ applies }) => applies)
  const denied = applying.some(({ effect }) => effect === 'Deny')
  return { allowed: applying.length > 0 && !denied, statements }
}

interface Judgement {
  readonly applies: boolean
  readonly reasons: readonly string[]
}

function judge(statement: CompiledStatement, source: Statement, question: Question): Judgement {
  if (!statement.covers(question.action)) {
    return no(`the action is not among ${source.actions.join(', ')}`)
  }
  const variables =
    question.action.toLowerCase() === 'iot:connect' ? question.variables : withoutConnect(question.variables)
  const tried = statement.resources.map((resource) => tryResource(resource, variables, question))
  const hit = tried.find(({ applies }) => applies)
  if (hit === undefined) return { applies: false, reasons: tried.flatMap(({ reasons }) => reasons) }
  const failing = [...statement.fixed, ...statement.live].filter((condition) =>
    condition.live ? !condition.holdsAt(question.seconds) : !condition.holds(variables),
  )
  if (failing.length > 0) return no(...failing.map((condition) => describe(condition, variables, question.seconds)))
  return { applies: true, reasons: hit.reasons }
}

function tryResource(resource: CompiledResource, variables: Variables, { arn, resource: asked }: Question): Judgement {
  if (!resource.inScope(arn)) return no(`${resource.text} is of another partition, service, region or account`)
  const missing = resource.variables.filter((name) => substitute(name, variables) === null)
  if (missing.length > 0) return no(...missing.map((name) => `${resource.text}: ${unusable(name, variables)}`))
  const pattern = resource.pattern(variables)
  if (pattern === null || !matches(pattern, asked))
    return no(`${resource.text} does not match${filledIn(resource, pattern)}`)
  return { applies: true, reasons: [`${resource.text} matches${filledIn(resource, pattern)}`] }
}

function unusable(name: string, variables: Variables): string {
  const values = variables.lookup(name) ?? []
  if (values.length === 0) return `\${${name}} has no value`
  return `\${${name}} is not filled in: ${values.length > 1 ? 'it has several values' : `its value ${quoted(values)} could change the pattern`}`
}

function filledIn({ variables }: CompiledResource, pattern: Pattern | null): string {
  const plain = pattern?.kind === 'exact' || pattern?.kind === 'prefix'
  return variables.length > 0 && plain ? ` (filled in: ${pattern.text}${pattern.kind === 'prefix' ? '*' : ''})` : ''
}

function describe({ label, key, live, variables: used }: Condition, variables: Variables, seconds: number): string {
  const values = live ? [new Date(seconds * 1000).toISOString()] : (variables.lookup(key) ?? [])
  const missing = used.filter((name) => substitute(name, variables) === null)
  const because = values.length === 0 ? `${key} has no value` : `${key} is ${quoted(values)}`
  return [`${label} does not hold: ${because}`, ...missing.map((name) => unusable(name, variables))].join('; ')
}

function quoted(values: readonly string[]): string {
  return values.map((value) => JSON.stringify(value.length > 128 ? `${value.slice(0, 128)}…` : value)).join(', ')
}

function no(...reasons: readonly string[]): Judgement {
  return { applies: false, reasons }
}
