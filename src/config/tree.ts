import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml'

/** Where a value stands. */
export interface Place {
  /** Absolute path of the file, or `environment variable NAME`. */
  readonly file: string
  /** From 1; 0 when there is no line. */
  readonly line: number
  readonly column: number
  /** What a relative path written here is relative to. */
  readonly folder: string
}

/** One thing wrong with the configuration. */
export interface Issue {
  readonly file: string
  readonly line: number
  readonly column: number
  /** Such as `domains[0].backend`; empty when it is about the whole file. */
  readonly path: string
  /** Never holds the value of a setting that may be secret. */
  readonly message: string
}

export type Path = readonly (string | number)[]

export interface Entry {
  /** Of the key. */
  readonly place: Place
  value: Tree
}

/** YAML with a place at every value, so that two files can be merged and an issue still says where. */
export type Tree =
  | { readonly kind: 'map'; readonly place: Place; readonly entries: Map<string, Entry> }
  | { readonly kind: 'list'; readonly place: Place; readonly items: Tree[] }
  | { readonly kind: 'scalar'; readonly place: Place; readonly value: unknown }

export function pathText(path: Path): string {
  return path.map((step, at) => (typeof step === 'number' ? `[${step}]` : at === 0 ? step : `.${step}`)).join('')
}

export function issueAt(place: Place, path: Path, message: string): Issue {
  return { file: place.file, line: place.line, column: place.column, path: pathText(path), message }
}

/** Anchors may repeat a value, but a few lines must not grow into millions ("billion laughs"). */
const MAX_NODES = 100_000
const MAX_DEPTH = 64

/** An alias without its anchor, which the parser leaves to whoever resolves it. */
class Unresolved extends Error {
  readonly place: Place

  constructor(place: Place) {
    super('unresolved alias')
    this.place = place
  }
}

/** Reads one YAML text. Nothing but issues when it has a fault of syntax: what is left of it would only mislead. */
export function parseTree(text: string, file: string, folder: string): Tree | readonly Issue[] {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true })
  const placeAt = (offset: number): Place => {
    const { line, col } = lines.linePos(offset)
    return { file, line, column: col, folder }
  }
  const faults = [...document.errors, ...document.warnings]
  if (faults.length > 0) {
    // What follows a colon may quote the file, and with it a secret.
    return faults.map(({ pos, message }) => issueAt(placeAt(pos[0]), [], `YAML: ${message.replace(/: .*/s, '')}`))
  }

  let nodes = 0
  const convert = (node: Node | null | undefined, at: Place, depth: number): Tree => {
    if (++nodes > MAX_NODES || depth > MAX_DEPTH) throw new RangeError('too many or too deeply nested values')
    const place = node?.range ? placeAt(node.range[0]) : at
    if (isAlias(node)) {
      const anchored = node.resolve(document)
      if (anchored === undefined) throw new Unresolved(place)
      return convert(anchored, place, depth + 1)
    }
    if (isSeq<Node>(node)) {
      return { kind: 'list', place, items: node.items.map((item) => convert(item, place, depth + 1)) }
    }
    if (isMap<Node, Node>(node)) {
      const entries = new Map<string, Entry>()
      for (const { key, value } of node.items) {
        const keyPlace = key.range ? placeAt(key.range[0]) : place
        entries.set(isScalar(key) ? String(key.value) : '', {
          place: keyPlace,
          value: convert(value, keyPlace, depth + 1),
        })
      }
      return { kind: 'map', place, entries }
    }
    return { kind: 'scalar', place, value: isScalar(node) ? node.value : null }
  }

  const top: Place = { file, line: 1, column: 1, folder }
  try {
    const tree = convert(document.contents, top, 0)
    if (tree.kind === 'map') return tree
    if (tree.kind === 'scalar' && tree.value === null) return { kind: 'map', place: top, entries: new Map() }
    return [issueAt(tree.place, [], 'expected settings such as «listeners: …»')]
  } catch (error) {
    if (error instanceof Unresolved) return [issueAt(error.place, [], 'YAML: no anchor of this name stands before it')]
    if (error instanceof RangeError) return [issueAt(top, [], `YAML: ${error.message}`)]
    throw error
  }
}

/** Joins `from` into `into`: maps key by key, lists end to end; anything else that both set is an issue. */
export function mergeTree(into: Tree, from: Tree, path: Path, issues: Issue[]): void {
  if (into.kind === 'map' && from.kind === 'map') {
    for (const [key, entry] of from.entries) {
      const mine = into.entries.get(key)
      if (mine === undefined) into.entries.set(key, entry)
      else mergeTree(mine.value, entry.value, [...path, key], issues)
    }
  } else if (into.kind === 'list' && from.kind === 'list') {
    into.items.push(...from.items)
  } else {
    issues.push(issueAt(from.place, path, `is set already, in ${into.place.file}:${into.place.line}`))
  }
}

/** The values alone. */
export function toPlain(tree: Tree): unknown {
  if (tree.kind === 'scalar') return tree.value
  if (tree.kind === 'list') return tree.items.map(toPlain)
  // Without a prototype, so that a key named __proto__ is a key.
  const plain: Record<string, unknown> = Object.create(null)
  for (const [key, { value }] of tree.entries) plain[key] = toPlain(value)
  return plain
}

/** The value at a path, or null. */
export function treeAt(tree: Tree, path: Path): Tree | null {
  let at: Tree | undefined = tree
  for (const step of path) {
    if (at?.kind === 'map') at = at.entries.get(String(step))?.value
    else if (at?.kind === 'list') at = at.items[Number(step)]
    else return null
  }
  return at ?? null
}

/** Where a path stands; of a setting that is missing, where the nearest thing around it stands. */
export function placeOf(tree: Tree, path: Path): Place {
  for (let length = path.length; length > 0; length--) {
    const found = treeAt(tree, path.slice(0, length))
    if (found !== null) return found.place
  }
  return tree.place
}

/** Where the key itself stands. */
export function keyPlaceOf(tree: Tree, path: Path): Place {
  const around = treeAt(tree, path.slice(0, -1))
  const entry = around?.kind === 'map' ? around.entries.get(String(path.at(-1))) : undefined
  return entry?.place ?? placeOf(tree, path)
}

/** Every value that a pattern such as `domains.*.certificates.*.cert` meets, with a way to put another in its place. */
export function* matches(
  tree: Tree,
  pattern: readonly string[],
  path: Path = [],
): Generator<{ readonly path: Path; readonly value: Tree; replace(value: Tree): void }> {
  const [step, ...rest] = pattern
  if (step === undefined || tree.kind === 'scalar') return
  const slots: { key: string | number; value: Tree; replace(value: Tree): void }[] = []
  if (tree.kind === 'list') {
    for (const [at, value] of tree.items.entries()) {
      slots.push({ key: at, value, replace: (other) => tree.items.splice(at, 1, other) })
    }
  } else {
    for (const [key, entry] of tree.entries) {
      slots.push({ key, value: entry.value, replace: (other) => Object.assign(entry, { value: other }) })
    }
  }
  for (const { key, value, replace } of slots) {
    if (step !== '*' && step !== key) continue
    if (rest.length === 0) yield { path: [...path, key], value, replace }
    else yield* matches(value, rest, [...path, key])
  }
}
