import type { Settings } from '../config/schema.ts'

/**
 * All that a generation is made of: what was asked for, and what the files say that it names. It is data, so that a primary
 * reads and checks it once and every worker makes the same of it, also one that is started when the files have changed.
 * It holds private keys and passwords: it is kept in memory and goes over the pipes of our own processes, nowhere else.
 */
export interface Material {
  /** Counts up with every reload that changed something. */
  readonly number: number
  readonly settings: Settings
  /** Contents by absolute path. Registries and revocation lists are not among them: they are followed by themselves. */
  readonly files: Readonly<Record<string, string>>
}
