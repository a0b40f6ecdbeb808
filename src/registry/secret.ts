import { statSync } from 'node:fs'
import { z } from 'zod'
import { isVariableName, type Path, type Source } from './source.ts'

/** A text, or where it stands. What is wrong is never repeated: it may be the secret. */
export const SECRET = z.union(
  [z.string().min(1), z.strictObject({ file: z.string().min(1) }), z.strictObject({ env: z.string().min(1) })],
  { error: () => 'expected a text (quoted if it looks like a number), { file: … } or { env: … }' },
)
export type SecretSource = z.output<typeof SECRET>

const MAX_SECRET_BYTES = 64 * 1024

/** The text itself; null after adding an issue. Files that everybody may read bring a warning. */
export function readSecret(source: Source, path: Path, secret: SecretSource, env: NodeJS.ProcessEnv): string | null {
  if (typeof secret === 'string') {
    warnIfPublic(source, path, source.file)
    return secret
  }
  if ('env' in secret) {
    if (!isVariableName(secret.env)) {
      source.issue(path, 'expected the name of an environment variable')
      return null
    }
    const text = env[secret.env]
    if (text !== undefined && text !== '') return text
    source.issue(path, `the environment variable ${secret.env} is ${text === undefined ? 'not set' : 'empty'}`)
    return null
  }
  const bytes = source.readFile(path, secret.file, MAX_SECRET_BYTES)
  if (bytes === null) return null
  warnIfPublic(source, path, source.resolve(secret.file))
  const text = bytes.toString('utf8').replace(/\r?\n$/, '')
  if (text !== '') return text
  source.issue(path, `${source.resolve(secret.file)} is empty`)
  return null
}

/** Everybody on the machine: the last of the three digits of a mode. */
const OTHERS_READ = 0o004

function warnIfPublic(source: Source, path: Path, file: string): void {
  if (!isPublic(file)) return
  const warning = source.say(path, `${file} holds a secret and may be read by everybody on this machine`)
  if (!source.findings.warnings.includes(warning)) source.findings.warnings.push(warning)
}

export function isPublic(file: string): boolean {
  const facts = statSync(file, { throwIfNoEntry: false })
  return facts !== undefined && process.platform !== 'win32' && (facts.mode & OTHERS_READ) !== 0
}
