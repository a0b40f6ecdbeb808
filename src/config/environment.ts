import { parse } from 'yaml'
import type { z } from 'zod'
import { SETTINGS } from './schema.ts'
import { type Issue, issueAt, type Path, type Place, type Tree, treeAt } from './tree.ts'

const PREFIX = 'BROKERGATE_'

type Schema = z.core.$ZodType

/** The parts of zod's definitions that are walked here. */
interface Definition {
  readonly type: string
  readonly innerType?: Schema
  readonly in?: Schema
  readonly shape?: Readonly<Record<string, Schema>>
  readonly element?: Schema
  readonly valueType?: Schema
  readonly options?: readonly Schema[]
  readonly discriminator?: string
}

const definitionOf = (schema: Schema): Definition => schema._zod.def as unknown as Definition

/** What stands under defaults, optionals and transforms. */
function inner(schema: Schema): Schema {
  const { innerType, in: input } = definitionOf(schema)
  const next = innerType ?? input
  return next === undefined ? schema : inner(next)
}

/** The settings of a section, by name; null for what is no section. Of a union, those of the `kind` that is chosen. */
function shapeOf(schema: Schema, tree: Tree | null): Readonly<Record<string, Schema>> | null {
  const { shape, options, discriminator } = definitionOf(inner(schema))
  if (shape !== undefined) return shape
  if (options === undefined || discriminator === undefined) return null
  const chosen = tree === null ? null : treeAt(tree, [discriminator])
  const shapes = options.map((option) => shapeOf(option, null) ?? {})
  const kind = chosen?.kind === 'scalar' ? chosen.value : null
  const fitting = shapes.find((option) => {
    const literal = option[discriminator]
    return literal !== undefined && fits(literal, kind)
  })
  return fitting ?? Object.assign({}, ...shapes)
}

const fits = (schema: Schema, value: unknown): boolean => (schema as z.ZodType).safeParse(value).success

/** The names that a section at this path may have, for the message about one that it may not. */
export function settingNamesAt(tree: Tree, path: Path): readonly string[] {
  let schema: Schema = SETTINGS
  for (const [depth, step] of path.entries()) {
    const { element, valueType } = definitionOf(inner(schema))
    const next = element ?? valueType ?? shapeOf(schema, treeAt(tree, path.slice(0, depth)))?.[step]
    if (next === undefined) return []
    schema = next
  }
  return Object.keys(shapeOf(schema, treeAt(tree, path)) ?? {})
}

/** `CONNECT_TIMEOUT`, `CONNECTTIMEOUT` and `connectTimeout` are one name. */
const plainName = (name: string): string => name.replaceAll(/[_-]/g, '').toLowerCase()

/**
 * Puts `BROKERGATE_SECTION__KEY` from the environment over what the files say. Only names with two underscores after
 * the prefix are settings: Kubernetes injects names such as BROKERGATE_PORT for a Service. An item of a list is named
 * by its number from 0; lists and names are not added to. Relative paths are relative to the main file.
 */
export function applyEnvironment(tree: Tree, env: NodeJS.ProcessEnv, folder: string, issues: Issue[]): void {
  for (const [name, text] of Object.entries(env).sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!name.startsWith(PREFIX) || text === undefined) continue
    const words = name.slice(PREFIX.length).split('__')
    if (words.length < 2) continue
    const place: Place = { file: `environment variable ${name}`, line: 0, column: 0, folder }
    const refusal = override(tree, words, text, place)
    if (refusal !== null) issues.push(issueAt(place, [], refusal))
  }
}

function override(tree: Tree, words: readonly string[], text: string, place: Place): string | null {
  let schema: Schema = SETTINGS
  let at: Tree = tree
  for (const [depth, word] of words.entries()) {
    const { element, valueType } = definitionOf(inner(schema))
    const shape = shapeOf(schema, at)
    const known =
      shape !== null
        ? Object.keys(shape)
        : at.kind === 'list'
          ? at.items.map((_, index) => String(index))
          : at.kind === 'map' && valueType !== undefined
            ? [...at.entries.keys()]
            : []
    const key = known.find((candidate) => plainName(candidate) === plainName(word))
    const next = key === undefined ? undefined : (shape?.[key] ?? element ?? valueType)
    if (key === undefined || next === undefined) {
      return `names no setting: «${word}» is unknown, expected one of: ${known.join(', ') || 'none'}`
    }
    schema = next
    if (depth < words.length - 1) {
      at = step(at, key, place) ?? at
      continue
    }
    const { type, discriminator } = definitionOf(inner(schema))
    if (['object', 'array', 'record'].includes(type) || discriminator !== undefined) {
      return 'names a section or a list, expected the name of a single setting'
    }
    const value: Tree = { kind: 'scalar', place, value: scalar(schema, text) }
    if (at.kind === 'list') at.items[Number(key)] = value
    else if (at.kind === 'map') at.entries.set(key, { place, value })
  }
  return null
}

/** Goes one step down, making the section if no file has it. */
function step(at: Tree, key: string, place: Place): Tree | null {
  if (at.kind === 'list') return at.items[Number(key)] ?? null
  if (at.kind !== 'map') return null
  const found = at.entries.get(key)
  if (found !== undefined) return found.value
  const value: Tree = { kind: 'map', place, entries: new Map() }
  at.entries.set(key, { place, value })
  return value
}

/** A text where the setting takes one, so that a password of digits stays a text; else what YAML makes of it. */
function scalar(schema: Schema, text: string): unknown {
  if (fits(schema, text)) return text
  try {
    const value: unknown = parse(text)
    return fits(schema, value) ? value : text
  } catch {
    return text
  }
}
