import { keysOf, sha256 } from './certificate-index.ts'
import { EMPTY_CONTENTS, type RegistryContents, registryOf } from './contents.ts'
import { readRegistry } from './files.ts'
import type { RegistryLog } from './live.ts'
import { OverlayReader, type OverlayRecord, OverlayWriter, type RegisteredRecord } from './overlay.ts'
import type { CertificateEntry, CertificateStatus } from './registry.ts'
import type { RegisterAnswer, Registrar } from './self-registration.ts'

/** A registry as the settings name it. */
export interface OwnedRegistry {
  readonly path: string
  /** Folder of the overlay; null: nothing is learnt. */
  readonly state: string | null
}

export interface OwnerOptions {
  readonly registries: Readonly<Record<string, OwnedRegistry>>
  readonly log: RegistryLog
  /** Something was written: everybody is to read on. */
  readonly changed: (registry: string) => void
  /** What the files of a registry say, where this process has read them already; else they are read when somebody asks. */
  readonly contents?: (registry: string) => RegistryContents | null
  readonly env?: NodeJS.ProcessEnv
  readonly now?: () => number
}

/** What somebody wants of a certificate. */
export interface Decision {
  /** Null: the one registry that there is. */
  readonly registry: string | null
  /** A fingerprint, or its beginning. */
  readonly certificate: string
  /** Base64 of the DER, so that a certificate can be refused that nobody has registered. */
  readonly der?: string | undefined
  readonly status: 'ACTIVE' | 'INACTIVE' | 'REVOKED'
  /** Attached with an activation. */
  readonly policies?: readonly string[] | undefined
  readonly things?: readonly string[] | undefined
}

export type Decided =
  | {
      readonly kind: 'done'
      readonly registry: string
      readonly fingerprint: string
      readonly status: CertificateStatus
    }
  | { readonly kind: 'refused'; readonly reason: string }

export interface Listed {
  readonly registry: string
  readonly fingerprint: string
  readonly status: CertificateStatus
  readonly things: readonly string[]
  readonly policies: readonly string[]
  /** True where it registered itself. */
  readonly learned: boolean
}

/** Shorter beginnings of a fingerprint are not looked up: a slip of the finger must not meet another device. */
const MIN_PREFIX = 8
const MINUTE_MS = 60_000

interface Owned extends OwnedRegistry {
  readonly name: string
  /** Null where nothing is learnt. */
  readonly overlay: { readonly reader: OverlayReader; readonly writer: OverlayWriter } | null
}

/** Writes the overlays: one in an instance, the primary or the only process. Operators' files are only read. */
export class RegistryOwner implements Registrar {
  readonly #options: OwnerOptions
  readonly #owned = new Map<string, Owned>()
  readonly #now: () => number
  /** Registry and CA → new devices in the minute that `#minute` counts. */
  readonly #counts = new Map<string, number>()
  #minute = 0

  /** @throws {Error} for an overlay that cannot be opened or is damaged */
  constructor(options: OwnerOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
    try {
      for (const [name, { path, state }] of Object.entries(options.registries)) {
        this.#owned.set(name, { name, path, state, overlay: state === null ? null : openOverlay(state) })
      }
    } catch (error) {
      this.close()
      throw error
    }
  }

  /**
   * Opens what other settings ask for besides; nothing counts before `commit`.
   * @throws {Error} for an overlay that cannot be opened or is damaged
   */
  prepare(registries: OwnerOptions['registries']): { commit(): void; abort(): void } {
    const next = new Map<string, Owned>()
    const opened: Owned[] = []
    const shut = (all: Iterable<Owned>) => {
      for (const { overlay } of all) overlay?.writer.close()
    }
    try {
      for (const [name, { path, state }] of Object.entries(registries)) {
        const known = [...this.#owned.values()].find((one) => one.state !== null && one.state === state)
        const overlay = state === null ? null : (known?.overlay ?? openOverlay(state))
        const owned = { name, path, state, overlay }
        if (known === undefined) opened.push(owned)
        next.set(name, owned)
      }
    } catch (error) {
      shut(opened)
      throw error
    }
    return {
      commit: () => {
        const kept = new Set(Array.from(next.values(), ({ overlay }) => overlay))
        shut([...this.#owned.values()].filter(({ overlay }) => !kept.has(overlay)))
        this.#owned.clear()
        for (const [name, owned] of next) this.#owned.set(name, owned)
      },
      abort: () => shut(opened),
    }
  }

  async register(registry: string, record: RegisteredRecord, maxPerMinute: number): Promise<RegisterAnswer> {
    const overlay = this.#owned.get(registry)?.overlay
    if (overlay === null || overlay === undefined) throw new Error(`the registry ${registry} has no state`)
    const { certificates } = overlay.reader.overlay
    const { fingerprint, twin } = keysOf(Buffer.from(record.der, 'base64'))
    if (twin === null || fingerprint !== record.fingerprint) throw new RangeError('not the certificate of the record')
    const isKnown =
      certificates.get(fingerprint) !== undefined ||
      certificates.withContents(twin.contents).length > 0 ||
      certificates.withNumber(twin.number).length > 0
    if (isKnown) return 'known'
    if (!this.#mayRegister(`${registry} ${record.ca}`, maxPerMinute)) return 'capped'
    this.#write(registry, overlay, record)
    return 'written'
  }

  decide(wanted: Decision): Decided {
    const refused = (reason: string): Decided => ({ kind: 'refused', reason })
    const owned = this.#find(wanted.registry)
    if (typeof owned === 'string') return refused(owned)
    const { overlay, name } = owned
    if (overlay === null) {
      return refused(`the registry ${name} has no state in the settings to write this down; change its files instead`)
    }
    const contents = this.#contentsOf(owned)
    const target = this.#target(contents, overlay.reader, wanted)
    if (typeof target === 'string') return refused(target)
    const { fingerprint } = target
    if (wanted.status === 'ACTIVE') {
      const reason = whyNotActive(contents, overlay.reader, fingerprint, wanted)
      if (reason !== null) return refused(reason)
    }
    this.#write(name, overlay, {
      kind: 'status',
      at: this.#now(),
      fingerprint,
      status: wanted.status,
      der: target.der === null ? null : Buffer.from(target.der).toString('base64'),
      ...(wanted.policies !== undefined && { policies: [...wanted.policies] }),
      ...(wanted.things !== undefined && { things: [...wanted.things] }),
    })
    return { kind: 'done', registry: name, fingerprint, status: wanted.status }
  }

  /** Every certificate of one registry, or of all. */
  list(registry: string | null): readonly Listed[] {
    const owned =
      registry === null ? [...this.#owned.values()] : [this.#owned.get(registry)].flatMap((one) => one ?? [])
    return owned.flatMap((one) => listOf(one.name, this.#contentsOf(one), one.overlay?.reader ?? null))
  }

  close(): void {
    for (const { overlay } of this.#owned.values()) overlay?.writer.close()
    this.#owned.clear()
  }

  #write(registry: string, { reader, writer }: NonNullable<Owned['overlay']>, record: OverlayRecord): void {
    writer.append(record)
    const read = reader.readOn()
    if (read.kind === 'damaged') throw new Error(read.issue)
    this.#options.changed(registry)
  }

  #mayRegister(ca: string, maxPerMinute: number): boolean {
    const minute = Math.floor(this.#now() / MINUTE_MS)
    if (minute !== this.#minute) this.#counts.clear()
    this.#minute = minute
    const count = this.#counts.get(ca) ?? 0
    if (count >= maxPerMinute) return false
    this.#counts.set(ca, count + 1)
    return true
  }

  /** A text says why none is meant. */
  #find(name: string | null): Owned | string {
    const all = [...this.#owned.values()]
    const known = all.map((one) => one.name).join(', ') || 'none'
    if (name !== null) return this.#owned.get(name) ?? `no such registry, there are: ${known}`
    return all.length === 1 ? all[0]! : `say which registry is meant, there are: ${known}`
  }

  /** Empty where the files cannot be read: a certificate must be revocable all the same. */
  #contentsOf(owned: Owned): RegistryContents {
    const known = this.#options.contents?.(owned.name) ?? null
    if (known !== null) return known
    const { env } = this.#options
    const read = readRegistry(owned.path, { state: owned.state !== null, ...(env !== undefined && { env }) })
    if (read.kind === 'valid') return read.contents
    for (const issue of read.issues) this.#options.log.error({ registry: owned.name }, issue)
    return EMPTY_CONTENTS
  }

  /** A text says why none is meant. */
  #target(
    contents: RegistryContents,
    reader: OverlayReader,
    { certificate, der, status }: Decision,
  ): Pick<CertificateEntry, 'fingerprint' | 'der'> | string {
    const prefix = certificate.replaceAll(':', '').toLowerCase()
    if (!/^[0-9a-f]{1,64}$/.test(prefix)) return 'expected a fingerprint of hex digits, or its beginning'
    if (prefix.length < MIN_PREFIX) return `expected at least ${MIN_PREFIX} digits of the fingerprint`
    if (der !== undefined) {
      const bytes = Buffer.from(der, 'base64')
      if (keysOf(bytes).twin === null || sha256(bytes) !== prefix) return 'expected the certificate of the fingerprint'
    }
    const entries = [...registryOf(contents, reader.overlay).entries()]
    const found = entries.filter((entry) => entry.fingerprint.startsWith(prefix))
    if (found.length > 1) return `${found.length} certificates begin like this; give more digits`
    const entry = found[0]
    const bytes = entry?.der ?? (der === undefined ? null : Buffer.from(der, 'base64'))
    if (entry !== undefined) return { fingerprint: entry.fingerprint, der: bytes }
    // A stranger may be refused beforehand; nobody becomes a device by this.
    if (status !== 'ACTIVE' && prefix.length === 64) return { fingerprint: prefix, der: bytes }
    return 'no certificate of this fingerprint is registered'
  }
}

function openOverlay(state: string): NonNullable<Owned['overlay']> {
  const writer = new OverlayWriter(state)
  const reader = new OverlayReader(state)
  const read = reader.readOn()
  if (read.kind === 'read') return { reader, writer }
  writer.close()
  throw new Error(read.issue)
}

/** Null: it may become ACTIVE. */
function whyNotActive(
  contents: RegistryContents,
  { overlay }: OverlayReader,
  fingerprint: string,
  { policies = [], things = [] }: Decision,
): string | null {
  const written = contents.certificates.get(fingerprint)
  if (overlay.certificates.get(fingerprint)?.status === 'REVOKED') return 'it is revoked, which is final'
  if (written !== undefined && written.status !== 'ACTIVE') {
    return `the registry's files say ${written.status}, and the stricter counts; change it there`
  }
  if (written !== undefined && policies.length + things.length > 0) {
    return "its policies and things stand in the registry's files; change them there"
  }
  const unknown = [
    ...policies.filter((name) => !contents.policies.has(name)).map((name) => `no such policy: ${name}`),
    ...things.filter((name) => !contents.things.has(name)).map((name) => `no such thing: ${name}`),
  ]
  return unknown[0] ?? null
}

/** For people. */
export function listOf(registry: string, contents: RegistryContents, reader: OverlayReader | null): readonly Listed[] {
  return [...registryOf(contents, reader?.overlay ?? null).entries()].map((entry) => ({
    registry,
    fingerprint: entry.fingerprint,
    status: entry.status,
    things: entry.things,
    policies: entry.policies,
    learned: contents.certificates.get(entry.fingerprint) === undefined,
  }))
}
