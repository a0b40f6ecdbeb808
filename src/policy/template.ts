import type { Piece } from './pattern.ts'
import type { Variables } from './permit.ts'
import { canonicalName } from './variables.ts'

/** A text of a policy with its variables, wildcards and escapes told apart. */
export interface Template {
  readonly pieces: readonly (Piece | { readonly kind: 'variable'; readonly name: string })[]
  /** Names in it, in the one spelling of `canonicalName`. */
  readonly variables: readonly string[]
}

export type TemplateParse =
  | { readonly kind: 'template'; readonly template: Template }
  | { readonly kind: 'invalid'; readonly message: string }

/** `prefix:name`; no space or quote, so that IAM's `${name, 'default'}`, which AWS IoT does not have, is refused. */
const NAME = /^[A-Za-z0-9.-]+:[A-Za-z0-9_.,@/:#[\]-]+$/
/** `${*}` as IAM spells the escapes, `$(*)` as the AWS IoT developer guide does. */
const ESCAPE = /^\$(?:\{([*?$])\}|\(([*?$])\))/
/** A value longer than this, or with one of these characters, is not filled in (AWS IoT, "policy variable limitations"). */
const MAX_VALUE_CHARS = 1024
const UNSAFE = /[*$+?#]/

/** Without wildcards `*` and `?` are characters as others are. */
export function parseTemplate(text: string, wildcards: boolean): TemplateParse {
  const pieces: Template['pieces'][number][] = []
  const variables: string[] = []
  let plain = ''
  const flush = () => {
    if (plain !== '') pieces.push({ kind: 'text', text: plain })
    plain = ''
  }
  for (let at = 0; at < text.length; at++) {
    const char = text[at]!
    if (wildcards && (char === '*' || char === '?')) {
      flush()
      pieces.push({ kind: char === '*' ? 'any' : 'one' })
      continue
    }
    const next = char === '$' ? text[at + 1] : undefined
    if (next !== '{' && next !== '(') {
      plain += char
      continue
    }
    const escaped = ESCAPE.exec(text.slice(at, at + 4))
    if (escaped !== null) {
      plain += escaped[1] ?? escaped[2]
      at += 3
      continue
    }
    if (next === '(') {
      plain += char
      continue
    }
    const end = text.indexOf('}', at)
    if (end < 0) return { kind: 'invalid', message: '${ without }' }
    const written = text.slice(at + 2, end)
    if (!NAME.test(written)) {
      return { kind: 'invalid', message: `"${written.slice(0, 64)}" is not the name of a variable` }
    }
    flush()
    const name = canonicalName(written)
    pieces.push({ kind: 'variable', name })
    variables.push(name)
    at = end
  }
  flush()
  return { kind: 'template', template: { pieces, variables } }
}

/** The pieces with the variables' values in place; null when one of them cannot be filled in. */
export function fill(template: Template, variables: Variables): readonly Piece[] | null {
  const filled: Piece[] = []
  for (const piece of template.pieces) {
    if (piece.kind !== 'variable') {
      filled.push(piece)
      continue
    }
    const value = substitute(piece.name, variables)
    if (value === null) return null
    filled.push({ kind: 'text', text: value })
  }
  return filled
}

/** As `fill`, for a text without wildcards. */
export function fillText(template: Template, variables: Variables): string | null {
  let text = ''
  for (const piece of fill(template, variables) ?? [null]) {
    if (piece?.kind !== 'text') return null
    text += piece.text
  }
  return text
}

/** What stands for a variable: its one value, when that can do no harm in a pattern. */
export function substitute(name: string, variables: Variables): string | null {
  const values = variables.lookup(name)
  const value = values?.length === 1 ? values[0]! : null
  return value === null || value.length > MAX_VALUE_CHARS || UNSAFE.test(value) ? null : value
}
