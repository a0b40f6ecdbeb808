import { z } from 'zod'
import { looseRights } from '../file-rights.ts'
import { isVariableName, type Path, type Source } from './source.ts'

/** A text, or where it stands. What is wrong is never repeated: it may be the secret. */
export const SECRET = z.union(
  [z.string().min(1), z.strictObject({ file: z.string().min(1) }), z.strictObject({ env: z.string().min(1) })],
  { error: () => 'expected a text (quoted if it looks like a number), { file: … } or { env: … }' },
)
export type SecretSource = z.output<typeof SECRET>

const MAX_SECRET_BYTES = 64 * 1024

/** The text itself; null after adding an issue. A file with rights that are too loose brings a warning. */
export function readSecret(source: Source, path: Path, secret: SecretSource, env: NodeJS.ProcessEnv): string | null {
  if (typeof secret === 'string') {
    warnIfLoose(source, path, source.file)
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
  warnIfLoose(source, path, source.resolve(secret.file))
  const text = bytes.toString('utf8').replace(/\r?\n$/, '')
  if (text !== '') return text
  source.issue(path, `${source.resolve(secret.file)} is empty`)
  return null
}

/** Of a file that holds a secret; each warning once, however many secrets it holds. */
export function warnIfLoose(source: Source, path: Path, file: string): void {
  for (const problem of looseRights(file, 'secret')) {
    const warning = source.say(path, `${file} holds a secret and ${problem}`)
    if (!source.findings.warnings.includes(warning)) source.findings.warnings.push(warning)
  }
}
