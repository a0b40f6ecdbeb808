import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { ExecutionContext } from 'ava'
import type { Grants } from '../../src/policy/permit.ts'
import { NO_VARIABLES } from '../../src/policy/permit.ts'
import type { RegistryLog } from '../../src/registry/live.ts'
import { ARN } from '../support/identity.ts'

/** A folder with these files, gone after the test. */
export function folderOf(t: ExecutionContext, files: Readonly<Record<string, string>> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'brokergate-registry-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) put(folder, name, text)
  return folder
}

/** As an editor saves: under another name first, then in the place of the file. */
export function put(folder: string, name: string, text: string): void {
  const file = join(folder, name)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(`${file}.new`, text, { mode: 0o600 })
  renameSync(`${file}.new`, file)
}

export const policy = (effect: string, action = 'iot:*', resource = '*') =>
  JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: effect, Action: action, Resource: resource }] })

/** Whether these grants let somebody publish to `a`. */
export const mayPublish = (grants: Grants): boolean => grants.permit(ARN, NO_VARIABLES).allows('iot:Publish', 'topic/a')

/** Keeps what it is told. */
export function fakeLog() {
  const lines: string[] = []
  const say = (level: string) => (_fields: object, message: string) => void lines.push(`${level} ${message}`)
  const log: RegistryLog = { info: say('info'), warn: say('warn'), error: say('error') }
  return { log, lines }
}

/** Resolves when it holds, asked every few milliseconds; rejects after ten seconds. */
export async function until(t: ExecutionContext, holds: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 10_000
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ten seconds`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  t.pass()
}
