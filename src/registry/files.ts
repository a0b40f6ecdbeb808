import { createHash, X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml'
import { z } from 'zod'
import { type CertificateEntry, createRegistry, type Registry } from './registry.ts'

export type RegistryFiles =
  | {
      readonly kind: 'valid'
      readonly registry: Registry
      /** Every file that was read, to be watched. */
      readonly files: readonly string[]
      /** What works but should not stay so, in the form of the issues. */
      readonly warnings: readonly string[]
    }
  | { readonly kind: 'invalid'; readonly issues: readonly string[] }

/** A certificate is one or two KiB; a larger file is something else. */
const MAX_PEM_BYTES = 64 * 1024

const Certificate = z
  .strictObject({
    file: z.string().min(1).optional(),
    fingerprint: z
      .string()
      .transform((text) => text.replaceAll(':', '').toLowerCase())
      .pipe(z.string().regex(/^[0-9a-f]{64}$/, 'must be the SHA-256 of the certificate’s DER: 64 hex digits'))
      .optional(),
    status: z.enum(['ACTIVE', 'INACTIVE', 'REVOKED', 'PENDING_ACTIVATION']).default('ACTIVE'),
  })
  .refine((entry) => (entry.file === undefined) !== (entry.fingerprint === undefined), {
    error: 'needs a file or a fingerprint, and not both',
  })

const RegistryFile = z.strictObject({ certificates: z.array(Certificate).default([]) })

type Path = readonly PropertyKey[]

/** One YAML file while it is read: what it says, and on which line. */
interface Source {
  readonly file: string
  readonly document: Document.Parsed
  readonly lines: LineCounter
}

/** Reads and joins every `*.yaml` of a folder. All that is wrong comes at once, each as `file:line: path: message`. */
export function readRegistry(folder: string): RegistryFiles {
  const issues: string[] = []
  const warnings: string[] = []
  const files: string[] = []
  const entries: CertificateEntry[] = []
  /** Fingerprint → the place that named it first. */
  const seen = new Map<string, string>()

  let names: string[]
  try {
    names = readdirSync(folder)
      .filter((name) => name.endsWith('.yaml'))
      .sort()
  } catch (error) {
    return { kind: 'invalid', issues: [`${folder}:1: : cannot be read: ${codeOf(error)}`] }
  }

  for (const name of names) {
    const file = join(folder, name)
    files.push(file)
    const source = readYaml(file, issues)
    if (source === null) continue
    const parsed = RegistryFile.safeParse(toValue(source, issues))
    if (!parsed.success) {
      for (const issue of parsed.error.issues) issues.push(...describe(source, issue))
      continue
    }
    for (const [index, wanted] of parsed.data.certificates.entries()) {
      const path = ['certificates', index]
      const der = wanted.file === undefined ? null : readCertificate(source, path, wanted.file, files, issues)
      if (wanted.file !== undefined && der === null) continue
      const fingerprint = der === null ? wanted.fingerprint! : createHash('sha256').update(der).digest('hex')
      const first = seen.get(fingerprint)
      if (first !== undefined) {
        issues.push(at(source, path, `this certificate is registered already, at ${first}`))
        continue
      }
      seen.set(fingerprint, `${file}:${lineOf(source, path)}`)
      if (der === null && wanted.status !== 'ACTIVE') {
        warnings.push(
          at(
            source,
            path,
            `${wanted.status} by fingerprint only: give the file, so that altered copies are refused too`,
          ),
        )
      }
      entries.push({ fingerprint, status: wanted.status, der, policies: [], things: [], exclusive: false })
    }
  }
  if (issues.length > 0) return { kind: 'invalid', issues }
  return { kind: 'valid', registry: createRegistry(entries), files, warnings }
}

function readYaml(file: string, issues: string[]): Source | null {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    issues.push(`${file}:1: : cannot be read: ${codeOf(error)}`)
    return null
  }
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  for (const error of document.errors) {
    issues.push(`${file}:${lines.linePos(error.pos[0]).line}: : ${error.message}`)
  }
  return document.errors.length > 0 ? null : { file, document, lines }
}

function toValue(source: Source, issues: string[]): unknown {
  try {
    // An empty file is an empty registry.
    return source.document.toJS() ?? {}
  } catch (error) {
    // Aliases that unfold without end.
    issues.push(at(source, [], error instanceof Error ? error.message : String(error)))
    return {}
  }
}

/** DER of the only certificate in a PEM file; null after adding an issue. */
function readCertificate(source: Source, entry: Path, name: string, files: string[], issues: string[]): Buffer | null {
  const path = [...entry, 'file']
  const file = resolve(dirname(source.file), name)
  files.push(file)
  try {
    if (statSync(file).size > MAX_PEM_BYTES) {
      issues.push(at(source, path, `${file} is larger than 64 KiB`))
      return null
    }
    const pem = readFileSync(file, 'latin1')
    const count = pem.split('-----BEGIN CERTIFICATE-----').length - 1
    if (count !== 1) {
      issues.push(at(source, path, `${file} holds ${count} PEM certificates; one is needed`))
      return null
    }
    return Buffer.from(new X509Certificate(pem.slice(pem.indexOf('-----BEGIN CERTIFICATE-----'))).raw)
  } catch (error) {
    issues.push(at(source, path, `${file} cannot be read as a certificate: ${codeOf(error)}`))
    return null
  }
}

function describe(source: Source, issue: z.core.$ZodIssue): string[] {
  if (issue.code !== 'unrecognized_keys') return [at(source, issue.path, issue.message)]
  return issue.keys.map((key) => at(source, [...issue.path, key], 'unknown key'))
}

function at(source: Source, path: Path, message: string): string {
  return `${source.file}:${lineOf(source, path)}: ${path.map(String).join('.')}: ${message}`
}

/** Line of a key where there is one, else of its nearest parent. */
function lineOf(source: Source, path: Path): number {
  const key = path.at(-1)
  for (let length = path.length; length >= 0; length--) {
    if (length === path.length && typeof key === 'string') {
      const parent = source.document.getIn(path.slice(0, -1), true)
      const pair = isMap(parent) ? parent.items.find((item) => isScalar(item.key) && item.key.value === key) : undefined
      if (isNode(pair?.key) && pair.key.range) return source.lines.linePos(pair.key.range[0]).line
    }
    const node = length === 0 ? source.document.contents : source.document.getIn(path.slice(0, length), true)
    if (isNode(node) && node.range) return source.lines.linePos(node.range[0]).line
  }
  return 1
}

/** `ENOENT`, or what was said. */
function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message
}
