import type { DomainSettings, Settings } from '../config/schema.ts'
import type { Metrics, ReloadResult } from '../control/metrics.ts'
import type { ArnHead } from '../policy/permit.ts'
import { headWarnings } from '../registry/head-warnings.ts'
import { liveRegistry, type RegistryLog, type WatchedRegistry } from '../registry/live.ts'
import { type LiveRevocations, RevocationFiles } from '../registry/revocations.ts'
import { certificatesOf } from '../tls/domain-options.ts'
import type { Lease } from './shared.ts'

export interface RegistryDeps {
  readonly metrics: Metrics
  readonly log: RegistryLog
  readonly read: (file: string) => string
  readonly lease: Lease
}

/** What is known of devices: registries and revocation lists, each followed when its files change. */
export interface Registries {
  /** By their names in the settings. */
  readonly byName: ReadonlyMap<string, WatchedRegistry>
  /** By the index of their domain; null where it has none. */
  readonly revocations: readonly (LiveRevocations | null)[]
  /** From now on changes take effect, and `changed` is told of each. Returns what ends the telling. */
  watch(changed: () => void): () => void
}

export function headOf(settings: Settings, { aws }: DomainSettings): ArnHead {
  return {
    partition: aws.partition ?? settings.aws.partition,
    region: aws.region ?? settings.aws.region,
    accountId: aws.accountId ?? settings.aws.accountId,
  }
}

/**
 * All that can be read, and what is wrong with the rest or with what domains want of it. Those of earlier generations
 * where the settings are the same and the files are as they were when they took effect.
 */
export function openRegistries(
  settings: Settings,
  deps: RegistryDeps,
  issues: string[],
  warnings: string[],
): Registries | null {
  const byName = openAll(settings, deps, issues, warnings)
  for (const [index, { clientTrust }] of settings.domains.entries()) {
    try {
      clientTrust.ca.flatMap((file) => certificatesOf(deps.read(file)))
    } catch (error) {
      issues.push(`domains[${index}].clientTrust.ca: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  if (issues.length > 0) return null
  const files = openRevocationFiles(settings, deps)
  const revocations = settings.domains.map((domain, index) => openRevocations(files, domain, index, deps, issues))
  return {
    byName,
    revocations,
    watch(changed) {
      const live = [...byName.values(), ...new Set(revocations)]
      const ends = live.map((one) => one?.onChange(changed))
      for (const one of byName.values()) one.watch()
      files.watch()
      return () => {
        for (const end of ends) end?.()
      }
    },
  }
}

function openAll(
  settings: Settings,
  { log, metrics, lease }: RegistryDeps,
  issues: string[],
  warnings: string[],
): ReadonlyMap<string, WatchedRegistry> {
  const registries = new Map<string, WatchedRegistry>()
  for (const [name, { path, state }] of Object.entries(settings.registries)) {
    const reloaded = (registry: string, result: ReloadResult) => metrics.registryReload(registry, result)
    const keeping = {
      key: [name, path, state],
      close: (live: WatchedRegistry) => live.close(),
      isCurrent: (live: WatchedRegistry) => live.isCurrent(),
    }
    let wrong: readonly string[] = []
    try {
      const live = lease.use<WatchedRegistry>('registry', keeping, () => {
        const result = liveRegistry(path, { name, state, log, reloaded })
        if (result.kind === 'live') return result.live
        wrong = result.issues
        throw new Error('invalid')
      })
      registries.set(name, live)
      const heads = settings.domains
        .filter(({ registry }) => registry === name)
        .map((domain) => headOf(settings, domain))
      warnings.push(...live.warnings, ...headWarnings(name, live.contents.policies, heads))
    } catch (error) {
      if (wrong.length === 0) throw error
      issues.push(...wrong)
    }
  }
  for (const [index, { registry, clientTrust }] of settings.domains.entries()) {
    const known = registry === null ? undefined : registries.get(registry)?.contents.policies
    if (known === undefined) continue
    for (const name of clientTrust.policies.filter((policy) => !known.has(policy))) {
      issues.push(`domains[${index}].clientTrust.policies: the registry ${registry} has no policy ${name}`)
    }
  }
  return registries
}

/** One for all lists: large ones are neither read twice nor read again for a reload that does not touch them. */
function openRevocationFiles(settings: Settings, { log, metrics, lease }: RegistryDeps): RevocationFiles {
  const files = settings.domains.flatMap(({ clientTrust }) => clientTrust.crl?.files ?? [])
  const cas = settings.domains.flatMap(({ clientTrust }) => clientTrust.ca)
  const keeping = {
    key: [[...new Set(files)].sort(), cas],
    close: (one: RevocationFiles) => one.close(),
    isCurrent: (one: RevocationFiles) => one.isCurrent(),
  }
  const reloaded = (result: ReloadResult) => metrics.revocationReload(result)
  return lease.use<RevocationFiles>('revocations', keeping, () => new RevocationFiles({ log, reloaded }))
}

function openRevocations(
  files: RevocationFiles,
  { clientTrust: { crl, ca } }: DomainSettings,
  index: number,
  { read }: RegistryDeps,
  issues: string[],
): LiveRevocations | null {
  if (crl === null) return null
  const opened = files.open(
    crl.files,
    ca.flatMap((file) => certificatesOf(read(file))),
  )
  if (!('issues' in opened)) return opened
  for (const issue of opened.issues) issues.push(`domains[${index}].clientTrust.crl.files: ${issue}`)
  return null
}
