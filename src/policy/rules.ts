import { matches, type Pattern } from './pattern.ts'

/**
 * What policies say, in the form in which it is asked once per packet.
 *
 * Hot: `ResourceSet.has` and `ActionRules.verdict` allocate nothing. Exact resources cost one look-up, prefixes a binary
 * search, and so do patterns with a wildcard inside: only those whose text before it fits are tried.
 */

/** Resources of one action and effect, compared by the tail of their ARN. */
export class ResourceSet {
  readonly #everything: boolean
  readonly #exact: ReadonlySet<string>
  /** Sorted, and none a prefix of another: then at most one can be a prefix of a text, the last that is not after it. */
  readonly #prefixes: readonly string[]
  readonly #globs: GlobIndex
  /** Asked first: even an empty set would hash the resource. */
  readonly #exactCount: number
  readonly empty: boolean

  constructor(patterns: readonly Pattern[]) {
    this.#everything = patterns.some(({ kind }) => kind === 'everything')
    this.#exact = new Set(patterns.flatMap((pattern) => (pattern.kind === 'exact' ? [pattern.text] : [])))
    this.#prefixes = shortest(patterns.flatMap((pattern) => (pattern.kind === 'prefix' ? [pattern.text] : [])))
    this.#globs = new GlobIndex(patterns.filter((pattern) => pattern.kind === 'glob'))
    this.#exactCount = this.#exact.size
    this.empty = patterns.length === 0
  }

  has(resource: string): boolean {
    if (this.#everything || (this.#exactCount > 0 && this.#exact.has(resource))) return true
    return this.#hasPrefixOf(resource) || this.#globs.matches(resource)
  }

  /** True only if every resource that starts with `prefix` is in. */
  covers(prefix: string): boolean {
    return this.#everything || this.#prefixes.some((text) => prefix.startsWith(text))
  }

  #hasPrefixOf(resource: string): boolean {
    const at = lastNotAfter(this.#prefixes, resource)
    return at >= 0 && resource.startsWith(this.#prefixes[at]!)
  }
}

/**
 * Patterns by the text before their first wildcard. All such texts that a resource starts with are prefixes of the last one
 * that is not after the resource, so its ancestors are the only ones to look at.
 */
class GlobIndex {
  /** Sorted, each once. */
  readonly #heads: readonly string[]
  /** Index of the longest other head that is a prefix of this one; -1 for none. */
  readonly #parents: readonly number[]
  readonly #globs: readonly (readonly Pattern[])[]

  constructor(globs: readonly Extract<Pattern, { readonly kind: 'glob' }>[]) {
    const byHead = Map.groupBy(globs, ({ head }) => head[0] ?? '')
    this.#heads = [...byHead.keys()].sort(byUnits)
    this.#globs = this.#heads.map((head) => byHead.get(head)!)
    this.#parents = this.#heads.map((head, n) =>
      this.#heads.findLastIndex((other, m) => m < n && head.startsWith(other)),
    )
  }

  matches(resource: string): boolean {
    for (let at = lastNotAfter(this.#heads, resource); at >= 0; at = this.#parents[at]!) {
      if (!resource.startsWith(this.#heads[at]!)) continue
      for (const pattern of this.#globs[at]!) if (matches(pattern, resource)) return true
    }
    return false
  }
}

/** Index of the last of the sorted texts that is not greater; -1 when all are. */
function lastNotAfter(texts: readonly string[], text: string): number {
  let low = 0
  let high = texts.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (texts[middle]! <= text) low = middle + 1
    else high = middle
  }
  return low - 1
}

/** By UTF-16 unit, as `<=` compares. */
function byUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/** Sorted, without those that a shorter one covers. */
function shortest(texts: readonly string[]): readonly string[] {
  const kept: string[] = []
  for (const text of [...texts].sort(byUnits)) {
    const last = kept.at(-1)
    if (last === undefined || !text.startsWith(last)) kept.push(text)
  }
  return kept
}

/** A condition that is looked at anew with each decision. */
export interface LiveCondition {
  /** @param seconds since 1970 */
  holdsAt(seconds: number): boolean
}

export interface Rule {
  readonly effect: 'Allow' | 'Deny'
  readonly pattern: Pattern
  /** All must hold; empty: they were decided before, or there are none. */
  readonly live: readonly LiveCondition[]
}

export const UNDECIDED = 0
export const ALLOWED = 1
export const DENIED = 2
export type Verdict = typeof UNDECIDED | typeof ALLOWED | typeof DENIED

/** Everything that is said of one action. */
export class ActionRules {
  readonly #allow: ResourceSet
  readonly #deny: ResourceSet
  readonly #live: readonly Rule[]
  readonly #seconds: () => number

  /** @param seconds now, since 1970 */
  constructor(rules: readonly Rule[], seconds: () => number) {
    const fixed = (effect: Rule['effect']) =>
      new ResourceSet(
        rules.filter((rule) => rule.effect === effect && rule.live.length === 0).map(({ pattern }) => pattern),
      )
    this.#allow = fixed('Allow')
    this.#deny = fixed('Deny')
    this.#live = rules.filter(({ live }) => live.length > 0)
    this.#seconds = seconds
  }

  /** Deny wins; what is not mentioned is undecided. */
  verdict(resource: string): Verdict {
    if (!this.#deny.empty && this.#deny.has(resource)) return DENIED
    let verdict: Verdict = !this.#allow.empty && this.#allow.has(resource) ? ALLOWED : UNDECIDED
    if (this.#live.length === 0) return verdict
    const now = this.#seconds()
    for (const rule of this.#live) {
      if (!matches(rule.pattern, resource) || !allHold(rule.live, now)) continue
      if (rule.effect === 'Deny') return DENIED
      verdict = ALLOWED
    }
    return verdict
  }

  /** True if something may be denied, now or at another time. */
  get restricts(): boolean {
    return !this.#deny.empty || this.#live.some(({ effect }) => effect === 'Deny')
  }

  /** True only if every resource that starts with `prefix` is allowed, at any time, as far as these rules go. */
  allowsUnder(prefix: string): boolean {
    return this.#allow.covers(prefix)
  }
}

function allHold(conditions: readonly LiveCondition[], seconds: number): boolean {
  for (const condition of conditions) if (!condition.holdsAt(seconds)) return false
  return true
}
