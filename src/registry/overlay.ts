import { closeSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { type PolicyDocument, parsePolicyDocument } from '../policy/document.ts'
import { CertificateIndex, sha256 } from './certificate-index.ts'
import type { Thing } from './entries.ts'
import type { CertificateEntry } from './registry.ts'

// What the program learns by itself: registrations, activations, revocations. One file of JSON lines that only grows; the
// primary writes it, every process reads on from where it was. Files of operators are never written.

/** What was learnt, to be laid over what the operator wrote. */
export interface Learned {
  readonly certificates: CertificateIndex
  readonly things: ReadonlyMap<string, Thing>
  readonly policies: ReadonlyMap<string, PolicyDocument>
}

const FINGERPRINT = z.string().regex(/^[0-9a-f]{64}$/)
const STATUS = z.enum(['ACTIVE', 'INACTIVE', 'REVOKED', 'PENDING_ACTIVATION'])
const NAMES = z.array(z.string().min(1).max(256)).max(64)
const DER = z.base64().max(87_384)

const THING = z.strictObject({
  name: z.string().regex(/^[a-zA-Z0-9:_-]{1,128}$/),
  typeName: z.string().nullable(),
  attributes: z.record(z.string(), z.string()),
})

/** A device that came to be known at its first connection. */
const REGISTERED = z.strictObject({
  kind: z.literal('registered'),
  at: z.int(),
  fingerprint: FINGERPRINT,
  der: DER,
  ca: FINGERPRINT,
  status: STATUS,
  policies: NAMES,
  thing: THING.nullable(),
  exclusive: z.boolean(),
  /** Policy documents made for it, as JSON, by name. */
  documents: z.record(z.string().startsWith('template:'), z.string().max(262_144)),
})

/** What somebody decided about a certificate. */
const DECIDED = z.strictObject({
  kind: z.literal('status'),
  at: z.int(),
  fingerprint: FINGERPRINT,
  status: STATUS,
  /** Null when only its fingerprint is known. */
  der: DER.nullable(),
  /** Attached with an activation; absent: as before. */
  policies: NAMES.optional(),
  things: NAMES.optional(),
})

const RECORD = z.discriminatedUnion('kind', [REGISTERED, DECIDED])
export type OverlayRecord = z.output<typeof RECORD>
export type RegisteredRecord = z.output<typeof REGISTERED>
export type DecidedRecord = z.output<typeof DECIDED>

/** All that the records say together. */
export class Overlay implements Learned {
  readonly certificates = new CertificateIndex()
  readonly things = new Map<string, Thing>()
  readonly policies = new Map<string, PolicyDocument>()

  /** @throws {RangeError} for a record that contradicts itself */
  apply(record: OverlayRecord): void {
    if (record.kind === 'registered') this.#register(record)
    else this.#decide(record)
  }

  #register(record: RegisteredRecord): void {
    const { fingerprint, status, policies, exclusive, ca, at, thing } = record
    const der = Buffer.from(record.der, 'base64')
    if (sha256(der) !== fingerprint) throw new RangeError('the fingerprint is not that of the certificate')
    const documents = Object.entries(record.documents).map(([name, json]) => {
      const parsed = parsePolicyDocument(json)
      if (parsed.kind === 'invalid') throw new RangeError('a policy document that is none')
      return [name, parsed.document] as const
    })
    for (const [name, document] of documents) this.policies.set(name, document)
    if (thing !== null) this.things.set(thing.name, thing)
    this.#set({
      fingerprint,
      status,
      der,
      policies: [...policies, ...documents.map(([name]) => name)],
      things: thing === null ? [] : [thing.name],
      exclusive,
      registration: { ca, at },
    })
  }

  #decide(record: DecidedRecord): void {
    const { fingerprint, status } = record
    const known = this.certificates.get(fingerprint)
    const der = known?.der ?? (record.der === null ? null : Buffer.from(record.der, 'base64'))
    if (der !== null && sha256(der) !== fingerprint)
      throw new RangeError('the fingerprint is not that of the certificate')
    const things = record.things ?? known?.things ?? []
    this.#set({
      fingerprint,
      status,
      der,
      policies: record.policies ?? known?.policies ?? [],
      things,
      exclusive: (known?.exclusive ?? false) && things.length === 1,
      registration: known?.registration,
    })
  }

  #set(entry: CertificateEntry): void {
    // Revoked is for ever, whatever is written after it.
    const revoked = this.certificates.get(entry.fingerprint)?.status === 'REVOKED'
    this.certificates.set(revoked ? { ...entry, status: 'REVOKED' } : entry)
  }
}

export const OVERLAY_FILE = 'overlay.jsonl'
/** Read in pieces of this size, so that a long file is never in memory twice. */
const CHUNK_BYTES = 1024 * 1024
/** A record holds one certificate and a few policy documents. */
const MAX_LINE_BYTES = 4 * 1024 * 1024
const NEWLINE = 0x0a

export type OverlayRead =
  | { readonly kind: 'read'; readonly records: number }
  /** Whatever was written there is not known, and it may have been a revocation. */
  | { readonly kind: 'damaged'; readonly issue: string }

/** Reads an overlay from its beginning, and then what has come since. */
export class OverlayReader {
  readonly file: string
  overlay = new Overlay()
  /** Octets read so far, all of them whole lines. */
  #offset = 0
  #lines = 0

  constructor(state: string) {
    this.file = join(state, OVERLAY_FILE)
  }

  /** A last line without its end is left for later: somebody is writing it, or was cut short while writing. */
  readOn(): OverlayRead {
    let descriptor: number
    try {
      descriptor = openSync(this.file, 'r')
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
        if (this.#offset === 0) return { kind: 'read', records: 0 }
        return { kind: 'damaged', issue: `${this.file}:1: : is gone` }
      }
      return {
        kind: 'damaged',
        issue: `${this.file}:1: : cannot be read: ${error instanceof Error ? error.message : error}`,
      }
    }
    try {
      if (fstatSync(descriptor).size < this.#offset) {
        return { kind: 'damaged', issue: `${this.file}:${this.#lines}: : is shorter than it was` }
      }
      return this.#readLines(descriptor)
    } finally {
      closeSync(descriptor)
    }
  }

  #readLines(descriptor: number): OverlayRead {
    let records = 0
    let rest: Buffer = Buffer.alloc(0)
    for (;;) {
      const chunk = Buffer.allocUnsafe(CHUNK_BYTES)
      const size = readSync(descriptor, chunk, 0, chunk.length, this.#offset + rest.length)
      if (size === 0) return { kind: 'read', records }
      rest = rest.length === 0 ? chunk.subarray(0, size) : Buffer.concat([rest, chunk.subarray(0, size)])
      for (let end = rest.indexOf(NEWLINE); end !== -1; end = rest.indexOf(NEWLINE)) {
        const issue = this.#applyLine(rest.subarray(0, end))
        if (issue !== null) return { kind: 'damaged', issue: `${this.file}:${this.#lines + 1}: : ${issue}` }
        records++
        this.#lines++
        this.#offset += end + 1
        rest = rest.subarray(end + 1)
      }
      if (rest.length > MAX_LINE_BYTES) {
        return { kind: 'damaged', issue: `${this.file}:${this.#lines + 1}: : a line longer than 4 MiB` }
      }
    }
  }

  #applyLine(line: Buffer): string | null {
    try {
      const parsed = RECORD.safeParse(JSON.parse(line.toString('utf8')))
      if (!parsed.success) return `not a record: ${parsed.error.issues[0]?.path.join('.') ?? ''}`
      this.overlay.apply(parsed.data)
      return null
    } catch (error) {
      return error instanceof RangeError ? error.message : 'not JSON'
    }
  }
}

/** The one that writes. */
export class OverlayWriter {
  readonly #descriptor: number

  /** Makes folder and file where they are missing. @throws when they cannot be made or opened */
  constructor(state: string) {
    mkdirSync(state, { recursive: true, mode: 0o700 })
    this.#descriptor = openSync(join(state, OVERLAY_FILE), 'a+', 0o600)
    try {
      cutTornLine(this.#descriptor)
    } catch (error) {
      closeSync(this.#descriptor)
      throw error
    }
  }

  /** On the disk when this returns. @throws when it could not be written; then it does not count */
  append(record: OverlayRecord): void {
    const line = Buffer.from(`${JSON.stringify(record)}\n`)
    const before = fstatSync(this.#descriptor).size
    try {
      // One write, so that no reader sees half of it unless the disk is full.
      if (writeSync(this.#descriptor, line) !== line.length) throw new Error('the disk is full')
      fsyncSync(this.#descriptor)
    } catch (error) {
      ftruncateSync(this.#descriptor, before)
      throw error
    }
  }

  close(): void {
    closeSync(this.#descriptor)
  }
}

/** What an end without newline leaves was never answered for: whoever asked for it was not told that it is done. */
function cutTornLine(descriptor: number): void {
  let end = fstatSync(descriptor).size
  const octet = Buffer.alloc(1)
  while (end > 0) {
    readSync(descriptor, octet, 0, 1, end - 1)
    if (octet[0] === NEWLINE) break
    end--
  }
  if (end < fstatSync(descriptor).size) ftruncateSync(descriptor, end)
}
