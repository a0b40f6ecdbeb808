import { formatIssue, loadSettings } from '../config/load.ts'
import type { Settings } from '../config/schema.ts'

export type Print = (line: string) => void

/**
 * A look at settings that are right in form: whether certificates fit their keys, whether a registry can be read,
 * whether this runtime can serve a TLS policy. Each answers with what is wrong, one line each.
 */
export type Inspection = (settings: Settings) => readonly string[] | Promise<readonly string[]>

export interface CheckOptions {
  readonly file: string
  readonly env: NodeJS.ProcessEnv
  readonly inspections: readonly Inspection[]
  readonly print: Print
}

/** `brokergate check -c FILE`: exit code 0 and one line, or 1 and everything that is wrong. */
export async function check(options: CheckOptions): Promise<number> {
  const loaded = loadSettings(options.file, options.env)
  if (loaded.kind === 'invalid') return refuse(loaded.issues.map(formatIssue), options.print)
  const { settings } = loaded
  for (const warning of loaded.warnings) options.print(`warning: ${warning}`)
  const findings = await Promise.all(options.inspections.map((inspect) => inspect(settings)))
  const issues = findings.flat()
  if (issues.length > 0) return refuse(issues, options.print)
  options.print(`ok: ${summary(settings)}`)
  return 0
}

function refuse(issues: readonly string[], print: Print): number {
  for (const issue of issues) print(issue)
  print(issues.length === 1 ? '1 issue' : `${issues.length} issues`)
  return 1
}

function summary(settings: Settings): string {
  const counts: readonly (readonly [number, string, string])[] = [
    [settings.listeners.length, 'listener', 'listeners'],
    [settings.domains.length, 'domain', 'domains'],
    [Object.keys(settings.backends).length, 'backend', 'backends'],
    [Object.keys(settings.registries).length, 'registry', 'registries'],
  ]
  return counts.map(([count, one, many]) => `${count} ${count === 1 ? one : many}`).join(', ')
}
