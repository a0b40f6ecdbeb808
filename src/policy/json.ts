const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\]:,]/g

/** A key that stands twice in one object of a text that JSON.parse accepts; null when there is none. */
export function duplicateKey(text: string): string | null {
  /** Keys of each object around; null for a list. */
  const around: (Set<string> | null)[] = []
  let last = ''
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{') around.push(new Set())
    else if (token === '[') around.push(null)
    else if (token === '}' || token === ']') around.pop()
    else if (token === ':') {
      const keys = around.at(-1)
      // Decoded, for "\u0045ffect" is Effect too.
      const key: string = JSON.parse(last)
      if (keys?.has(key)) return key
      keys?.add(key)
    }
    last = token
  }
  return null
}
