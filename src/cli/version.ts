import { readFileSync } from 'node:fs'
import type { Print } from './check.ts'

/** The version in package.json. */
export function versionOf(): string {
  const description: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  const found = typeof description === 'object' && description !== null && 'version' in description
  return found ? String(description.version) : 'unknown'
}

/** `brokergate version`: ours and the runtime's. */
export function version(print: Print): number {
  const { bun, node } = process.versions
  print(`brokergate ${versionOf()} (${bun === undefined ? `Node ${node}` : `Bun ${bun}`})`)
  return 0
}
