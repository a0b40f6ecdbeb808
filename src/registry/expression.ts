import { z } from 'zod'

/** A text with holes: literal pieces, and parameters by the name they were declared with. */
export type Expression = readonly (string | { readonly parameter: string })[]

/** Thrown while a template is read; `path` leads from the expression to what is wrong. */
class ExpressionError extends Error {
  readonly path: readonly (string | number)[]

  constructor(message: string, path: readonly (string | number)[]) {
    super(message)
    this.path = path
  }
}

/** `{ Ref }`, `{ Fn::Join }` and `{ Fn::Sub }`: what a provisioning template may say in the place of a text. */
const FUNCTIONS: ReadonlySet<string> = new Set(['Ref', 'Fn::Join', 'Fn::Sub'])

export function isFunction(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const keys = Object.keys(value)
  return keys.length === 1 && FUNCTIONS.has(keys[0]!)
}

/** A text or one of the functions, as an expression over the declared parameters. */
export function expression(declared: ReadonlySet<string>) {
  return z.unknown().transform((value, context): Expression => {
    try {
      return compile(value, declared, [])
    } catch (error) {
      if (!(error instanceof ExpressionError)) throw error
      context.addIssue({ code: 'custom', message: error.message, path: [...error.path] })
      return z.NEVER
    }
  })
}

function compile(value: unknown, declared: ReadonlySet<string>, path: readonly (string | number)[]): Expression {
  if (typeof value === 'string') return [value]
  if (!isFunction(value)) throw new ExpressionError('expected a text, { Ref }, { Fn::Join } or { Fn::Sub }', path)
  const [name] = Object.keys(value)
  const argument = value[name!]
  const inside = [...path, name!]
  if (name === 'Ref') return [reference(argument, declared, inside)]
  if (name === 'Fn::Sub') {
    if (typeof argument !== 'string') throw new ExpressionError('expected a text', inside)
    return substitute(argument, (parameter) => (declared.has(parameter) ? parameter : null))
  }
  const [separator, items] = Array.isArray(argument) && argument.length === 2 ? argument : []
  if (typeof separator !== 'string' || !Array.isArray(items)) {
    throw new ExpressionError('expected [ separator, [ texts ] ]', inside)
  }
  return items.flatMap((item, at) => {
    const compiled = compile(item, declared, [...inside, 1, at])
    return at === 0 ? compiled : [separator, ...compiled]
  })
}

function reference(name: unknown, declared: ReadonlySet<string>, path: readonly (string | number)[]) {
  if (typeof name !== 'string' || !declared.has(name)) {
    throw new ExpressionError('expected the name of a parameter that is declared', path)
  }
  return { parameter: name }
}

/** `${name}` as a parameter where `known` says which; everything else stays as it is, policy variables among it. */
export function substitute(text: string, known: (name: string) => string | null): Expression {
  const parts: (string | { readonly parameter: string })[] = []
  let from = 0
  for (const match of text.matchAll(/\$\{([^{}]*)\}/g)) {
    const parameter = known(match[1]!)
    if (parameter === null) continue
    parts.push(text.slice(from, match.index), { parameter })
    from = match.index + match[0].length
  }
  return [...parts, text.slice(from)]
}

/** The names of the parameters in an expression. */
export function parametersOf(expression: Expression): string[] {
  return expression.flatMap((part) => (typeof part === 'string' ? [] : [part.parameter]))
}

/** @throws {TypeError} for a parameter without a value: whoever fills in has asked for all of them before */
export function fill(expression: Expression, values: ReadonlyMap<string, string>): string {
  return expression
    .map((part) => {
      if (typeof part === 'string') return part
      const value = values.get(part.parameter)
      if (value === undefined) throw new TypeError(`no value for ${part.parameter}`)
      return value
    })
    .join('')
}
