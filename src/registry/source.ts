import { readFileSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument, visit } from 'yaml'
import type { z } from 'zod'

export type Path = readonly PropertyKey[]

/** A YAML file of a hundred thousand certificates has some 10 MiB; parsing takes about ten times its size in memory. */
const MAX_YAML_BYTES = 64 * 1024 * 1024

/** Gathered while a registry is read: all that is wrong, all that should not stay so, and every file that counts. */
export class Findings {
  readonly issues: string[] = []
  readonly warnings: string[] = []
  readonly files = new Set<string>()
}

/** One YAML file: what it says, and on which line. */
export class Source {
  readonly file: string
  readonly findings: Findings
  readonly #document: Document.Parsed
  readonly #lines: LineCounter

  private constructor(file: string, findings: Findings, document: Document.Parsed, lines: LineCounter) {
    this.file = file
    this.findings = findings
    this.#document = document
    this.#lines = lines
  }

  /** Null after adding issues. */
  static read(file: string, findings: Findings): Source | null {
    findings.files.add(file)
    const text = readBounded(file, MAX_YAML_BYTES)
    if ('missing' in text) {
      findings.issues.push(`${file}:1: : ${text.missing}`)
      return null
    }
    const lines = new LineCounter()
    const document = parseDocument(text.bytes.toString('utf8'), {
      lineCounter: lines,
      prettyErrors: false,
      stringKeys: true,
    })
    const lineAt = (offset: number) => lines.linePos(offset).line
    // What follows a colon may quote the file, and with it a secret.
    const faults = [...document.errors, ...document.warnings].map(
      ({ pos, message }) => `${file}:${lineAt(pos[0])}: : ${message.replace(/: .*/s, '')}`,
    )
    visit(document, {
      Pair(_, { key }) {
        // A prototype's name as a key would vanish on the way to an object.
        if (!isScalar(key) || key.value !== '__proto__') return
        faults.push(`${file}:${lineAt(key.range?.[0] ?? 0)}: : __proto__ cannot be a name`)
      },
    })
    findings.issues.push(...faults)
    return faults.length > 0 ? null : new Source(file, findings, document, lines)
  }

  /** The values alone; an empty file is an empty registry. */
  toValue(): unknown {
    try {
      return this.#document.toJS() ?? {}
    } catch {
      // The library counts how far aliases unfold.
      this.issue([], 'aliases that unfold without end')
      return {}
    }
  }

  /** `file:line: path: message` */
  say(path: Path, message: string): string {
    return `${this.place(path)}: ${path.map(String).join('.')}: ${message}`
  }

  issue(path: Path, message: string): void {
    this.findings.issues.push(this.say(path, message))
  }

  warn(path: Path, message: string): void {
    this.findings.warnings.push(this.say(path, message))
  }

  /** What a schema says, each unknown key on its own line. */
  schemaIssue(issue: z.core.$ZodIssue): void {
    if (issue.code === 'unrecognized_keys') {
      for (const key of issue.keys) {
        if (this.#isRemnant([...issue.path, key])) this.issue(issue.path, REMNANT)
        else this.issue([...issue.path, key], 'unknown key')
      }
    } else if (issue.path.at(-2) === 'headers' && this.#isRemnant(issue.path)) {
      this.issue(issue.path.slice(0, -1), REMNANT)
    } else if (issue.code === 'invalid_key') {
      this.issue(issue.path, issue.issues[0]?.message ?? issue.message)
    } else this.issue(issue.path, issue.message)
  }

  /** `secret: ab,cd` between braces is `secret: ab` and a key `cd` without a value, which is not repeated. */
  #isRemnant(path: Path): boolean {
    const value = this.#document.getIn(path, true)
    return this.#document.hasIn(path) && (value === undefined || (isScalar(value) && value.value === null))
  }

  /** `file:line` of a key where there is one, else of its nearest parent. */
  place(path: Path): string {
    return `${this.file}:${this.#lineOf(path)}`
  }

  #lineOf(path: Path): number {
    const key = path.at(-1)
    for (let length = path.length; length >= 0; length--) {
      if (length === path.length && typeof key === 'string') {
        const parent = this.#document.getIn(path.slice(0, -1), true)
        const pair = isMap(parent)
          ? parent.items.find((item) => isScalar(item.key) && item.key.value === key)
          : undefined
        if (isNode(pair?.key) && pair.key.range) return this.#lines.linePos(pair.key.range[0]).line
      }
      const node = length === 0 ? this.#document.contents : this.#document.getIn(path.slice(0, length), true)
      if (isNode(node) && node.range) return this.#lines.linePos(node.range[0]).line
    }
    return 1
  }

  /** Absolute path of a file that is named here; from now on it is watched with the others. */
  resolve(name: string): string {
    const file = resolve(dirname(this.file), name)
    this.findings.files.add(file)
    return file
  }

  /** A file that is named here; null after adding an issue. */
  readFile(path: Path, name: string, maxBytes: number): Buffer | null {
    if (!isPath(name)) {
      this.issue(path, NOT_A_PATH)
      return null
    }
    const file = this.resolve(name)
    const found = readBounded(file, maxBytes)
    if ('bytes' in found) return found.bytes
    this.issue(path, `${file} ${found.missing}`)
    return null
  }
}

const REMNANT = 'holds a name without a value; a text with a comma must be quoted'

/** A key or certificate in the place of its path is a common mistake; it is not repeated. */
export const NOT_A_PATH = 'expected the path of a file, this is its contents'
export const isPath = (name: string): boolean => !/[\r\n]|-----BEGIN/.test(name)

/** What stands in the place of a name may be the secret itself. POSIX.1-2024 §8.1. */
export const isVariableName = (name: string): boolean => /^[A-Za-z_]\w*$/.test(name)

function readBounded(file: string, maxBytes: number): { readonly bytes: Buffer } | { readonly missing: string } {
  try {
    const facts = statSync(file)
    // Opening a pipe would wait for its other end.
    if (!facts.isFile()) return { missing: 'cannot be read: not a file' }
    if (facts.size > maxBytes) return { missing: `is larger than ${maxBytes / 1024} KiB` }
    return { bytes: readFileSync(file) }
  } catch (error) {
    return { missing: `cannot be read: ${codeOf(error)}` }
  }
}

/** @throws {Error} that says why not */
export function readText(file: string, maxBytes: number): string {
  const found = readBounded(file, maxBytes)
  if ('missing' in found) throw new Error(found.missing)
  return found.bytes.toString('utf8')
}

/** `ENOENT`, or what was said. */
export function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message
}
