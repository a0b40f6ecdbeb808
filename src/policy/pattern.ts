/**
 * Patterns of resources and condition values: `*` is any run of characters, `/` and none included, `?` is exactly one
 * (a character, not a UTF-16 unit). Case counts, and a pattern covers the whole text (IAM user guide, "Wildcards in
 * resource ARNs").
 *
 * Hot: `matches` allocates nothing and never backtracks over more than one `*`, so no topic makes it slow.
 */

export type Piece =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'any' }
  | { readonly kind: 'one' }

/** Text between two `*`; null stands for one character. */
type Segment = readonly (string | null)[]

export type Pattern =
  | { readonly kind: 'everything' }
  | { readonly kind: 'exact'; readonly text: string }
  | { readonly kind: 'prefix'; readonly text: string }
  /** `tail` null: there is no `*`, so the head must be all. */
  | {
      readonly kind: 'glob'
      readonly head: Segment
      readonly middle: readonly Segment[]
      readonly tail: Segment | null
    }

/** The cheapest form that means the same. */
export function patternOf(pieces: readonly Piece[]): Pattern {
  const segments: (string | null)[][] = [[]]
  for (const piece of pieces) {
    const last = segments.at(-1)!
    if (piece.kind === 'any') segments.push([])
    else if (piece.kind === 'one') last.push(null)
    else if (piece.text !== '') appendText(last, piece.text)
  }
  const head = segments[0]!
  const plain = plainText(head)
  if (segments.length === 1) return plain === null ? { kind: 'glob', head, middle: [], tail: null } : exact(plain)
  const tail = segments.at(-1)!
  const middle = segments.slice(1, -1).filter((segment) => segment.length > 0)
  if (middle.length === 0 && tail.length === 0 && plain !== null) {
    return plain === '' ? { kind: 'everything' } : { kind: 'prefix', text: plain }
  }
  return { kind: 'glob', head, middle, tail }
}

function exact(text: string): Pattern {
  return { kind: 'exact', text }
}

function appendText(segment: (string | null)[], text: string): void {
  const last = segment.at(-1)
  if (typeof last === 'string') segment[segment.length - 1] = last + text
  else segment.push(text)
}

function plainText(segment: Segment): string | null {
  if (segment.length === 0) return ''
  return segment.length === 1 ? (segment[0] ?? null) : null
}

export function matches(pattern: Pattern, text: string): boolean {
  switch (pattern.kind) {
    case 'everything':
      return true
    case 'exact':
      return text === pattern.text
    case 'prefix':
      return text.startsWith(pattern.text)
    case 'glob':
      return matchesGlob(pattern, text)
  }
}

function matchesGlob(pattern: Extract<Pattern, { readonly kind: 'glob' }>, text: string): boolean {
  let at = forward(pattern.head, text, 0)
  if (at < 0) return false
  if (pattern.tail === null) return at === text.length
  // The leftmost place of each segment leaves the most to those after it, so the first try is the only one needed.
  for (const segment of pattern.middle) {
    at = find(segment, text, at)
    if (at < 0) return false
  }
  return backward(pattern.tail, text) >= at
}

/** End of the segment when it stands at `at`; -1 when it does not. */
function forward(segment: Segment, text: string, at: number): number {
  for (const part of segment) {
    if (part === null) {
      if (at >= text.length) return -1
      at += isPair(text, at) ? 2 : 1
    } else {
      if (!text.startsWith(part, at)) return -1
      at += part.length
    }
  }
  return at
}

/** Start of the segment when the text ends with it; -1 when it does not. */
function backward(segment: Segment, text: string): number {
  let end = text.length
  for (let n = segment.length - 1; n >= 0; n--) {
    const part = segment[n]!
    if (part === null) {
      if (end === 0) return -1
      end -= end >= 2 && isPair(text, end - 2) ? 2 : 1
    } else {
      end -= part.length
      if (end < 0 || !text.startsWith(part, end)) return -1
    }
  }
  return end
}

/** End of the leftmost place of the segment at or after `from`; -1 when there is none. */
function find(segment: Segment, text: string, from: number): number {
  const first = segment[0]!
  for (let at = from; at <= text.length; at++) {
    if (first !== null) {
      at = text.indexOf(first, at)
      if (at < 0) return -1
    }
    const end = forward(segment, text, at)
    if (end >= 0) return end
  }
  return -1
}

function isPair(text: string, at: number): boolean {
  const high = text.charCodeAt(at)
  if (high < 0xd800 || high > 0xdbff) return false
  const low = text.charCodeAt(at + 1)
  return low >= 0xdc00 && low <= 0xdfff
}
