import { splitArn } from './arn.ts'
import { type Condition, compileCondition } from './conditions.ts'
import type { PolicyDocument, Statement } from './document.ts'
import { matches, type Pattern, patternOf } from './pattern.ts'
import type { ArnHead, Variables } from './permit.ts'
import { fill, parseTemplate, type Template } from './template.ts'

/** A resource of a statement: the head is compared part by part, the tail once it is filled in. */
export interface CompiledResource {
  /** As it stands in the document. */
  readonly text: string
  readonly variables: readonly string[]
  inScope(head: ArnHead): boolean
  /** Of the ARN's tail; null when a variable has no value: then it matches nothing, under Deny too. */
  pattern(variables: Variables): Pattern | null
}

export interface CompiledStatement {
  readonly effect: Statement['effect']
  readonly resources: readonly CompiledResource[]
  /** To be decided when the values are known. */
  readonly fixed: readonly Condition[]
  /** To be decided each time. */
  readonly live: readonly Condition[]
  /** Whether the statement speaks of the action; names of actions do not depend on case. */
  covers(action: string): boolean
}

/** @throws {RangeError} for a statement that `parsePolicyDocument` would not have let pass */
export function compileStatement({ effect, actions, resources, conditions }: Statement): CompiledStatement {
  const compiled: Condition[] = []
  for (const [operator, keys] of conditions) {
    for (const [key, values] of keys) {
      const parse = compileCondition(operator, key, values, effect)
      if (parse.kind === 'invalid') throw new RangeError(`${operator} ${key}: ${parse.message}`)
      compiled.push(parse.condition)
    }
  }
  const names = actions.map((action) => constantPattern(action.toLowerCase()))
  return {
    effect,
    resources: resources.map(compileResource),
    fixed: compiled.filter(({ live }) => !live),
    live: compiled.filter(({ live }) => live),
    covers(action) {
      const name = action.toLowerCase()
      return names.some((pattern) => matches(pattern, name))
    },
  }
}

function compileResource(text: string): CompiledResource {
  if (text === '*') {
    return { text, variables: [], inScope: () => true, pattern: () => ({ kind: 'everything' }) }
  }
  const arn = splitArn(text)
  if (arn === null) throw new RangeError(`${text} is not an ARN`)
  const partition = constantPattern(arn.partition)
  const region = constantPattern(arn.region)
  const accountId = constantPattern(arn.accountId)
  const tail = templateOf(arn.resource)
  const constant = tail.variables.length === 0 ? patternOf(fill(tail, { lookup: () => null })!) : null
  return {
    text,
    variables: tail.variables,
    // Policies of other services stand in the same documents (`arn:aws:greengrass:…`); they say nothing here.
    inScope: (head) =>
      arn.service === 'iot' &&
      matches(partition, head.partition) &&
      matches(region, head.region) &&
      matches(accountId, head.accountId),
    pattern(variables) {
      if (constant !== null) return constant
      const pieces = fill(tail, variables)
      return pieces === null ? null : patternOf(pieces)
    },
  }
}

function constantPattern(text: string): Pattern {
  return patternOf(fill(templateOf(text), { lookup: () => null }) ?? [])
}

function templateOf(text: string): Template {
  const parse = parseTemplate(text, true)
  if (parse.kind === 'invalid') throw new RangeError(`${text}: ${parse.message}`)
  return parse.template
}

/** Resources of AWS IoT that no question under this head can match, so that `check` can warn of them. */
export function resourcesOutside(document: PolicyDocument, head: ArnHead): readonly string[] {
  return document.statements
    .flatMap(({ resources }) => resources)
    .filter((text) => splitArn(text)?.service === 'iot' && !compileResource(text).inScope(head))
}
