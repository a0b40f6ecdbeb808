import { createHash, X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { dirname, join, relative, resolve } from 'node:path'
import { formatIssue, loadSettings } from '../config/load.ts'
import type { Settings } from '../config/schema.ts'
import { readRegistry } from '../registry/files.ts'
import { OverlayReader } from '../registry/overlay.ts'
import { type Decision, type Listed, listOf } from '../registry/owner.ts'
import type { Print } from './check.ts'
import type { Issuer } from './pki.ts'

export interface CertsOptions {
  /** Null: that of a first run in the current folder. */
  readonly file: string | null
  readonly env: NodeJS.ProcessEnv
  readonly print: Print
}

export interface IssueOptions extends CertsOptions {
  readonly name: string
  /** Folder with `ca.pem` and `ca.key`; null: `pki` beside the configuration. */
  readonly pki: string | null
  /** Folder for the certificate and its key; null: the same. */
  readonly out: string | null
  /** Null: 825 days. */
  readonly days: string | null
}

const FIRST_RUN_CONFIG = join('.brokergate', 'brokergate.yaml')
const configOf = (file: string | null): string => resolve(file ?? FIRST_RUN_CONFIG)

/** A file name and a common name at once. */
const DEVICE_NAME = /^[\w][\w.:-]{0,63}$/
const MAX_DAYS = 3_650

/** `brokergate certs issue`: a device certificate of the development CA, and the lines that register it. */
export async function issue(options: IssueOptions): Promise<number> {
  const { name, print } = options
  const pki = options.pki ?? join(dirname(configOf(options.file)), 'pki')
  const out = options.out ?? pki
  const days = options.days === null ? undefined : Number(options.days)
  const wrong = (message: string): number => {
    print(message)
    return 1
  }
  if (!DEVICE_NAME.test(name)) return wrong('expected a name of at most 64 letters, digits and _.:-')
  if (days !== undefined && !(Number.isInteger(days) && days >= 1 && days <= MAX_DAYS)) {
    return wrong(`expected --days from 1 to ${MAX_DAYS}`)
  }
  const files = { cert: join(out, `${name}.pem`), key: join(out, `${name}.key`) }
  for (const file of Object.values(files)) if (existsSync(file)) return wrong(`${file} exists and is left alone`)
  // Of all that this program does only this and a first run make certificates.
  const { issueDevice, loadCa } = await import('./pki.ts')
  let ca: Issuer
  try {
    ca = loadCa(readFileSync(join(pki, 'ca.pem'), 'utf8'), readFileSync(join(pki, 'ca.key'), 'utf8'))
  } catch (error) {
    return wrong(`no development CA in ${pki}: ${error instanceof Error ? error.message : String(error)}`)
  }
  const issued = issueDevice(ca, { commonName: name, days })
  mkdirSync(out, { recursive: true, mode: 0o700 })
  writeFileSync(files.key, issued.keyPem, { mode: 0o600, flag: 'wx' })
  writeFileSync(files.cert, issued.chainPem, { mode: 0o644, flag: 'wx' })
  const near = relative(join(dirname(configOf(options.file)), 'registry'), resolve(files.cert))
  print(`${files.cert}\n${files.key}`)
  print('Registered by these lines in a *.yaml of the registry, with the policies that it is to have:')
  print(`certificates:\n  - { file: ${near}, status: ACTIVE, policies: [ devices ] }`)
  return 0
}

/** `brokergate certs list`: what the running process knows, or without one what the files say. */
export async function list(options: CertsOptions): Promise<number> {
  const settings = settingsOf(options)
  if (settings === null) return 1
  const answer = await ask(settings.admin.socket, '/certificates', 'GET')
  let listed: readonly Listed[]
  if (answer.kind === 'answer' && answer.status === 200) listed = answer.body as readonly Listed[]
  else if (answer.kind === 'nobody') {
    const read = listFiles(settings, options.env)
    if ('issues' in read) {
      for (const line of read.issues) options.print(line)
      return 1
    }
    listed = read.listed
  } else return complain(options.print, answer)
  for (const { registry, fingerprint, status, things, policies, learned } of listed) {
    const rest = [`things: ${things.join(', ') || '-'}`, `policies: ${policies.join(', ') || '-'}`]
    options.print([registry, fingerprint, status, ...rest, ...(learned ? ['learned'] : [])].join('  '))
  }
  return 0
}

export interface DecideOptions extends CertsOptions {
  /** A fingerprint, its beginning, or a PEM file. */
  readonly certificate: string
  readonly registry: string | null
  readonly status: Decision['status']
  readonly policies: readonly string[]
  readonly things: readonly string[]
}

/** `brokergate certs activate | deactivate | revoke`: the running process writes it down, in its overlay. */
export async function decide(options: DecideOptions): Promise<number> {
  const settings = settingsOf(options)
  if (settings === null) return 1
  const target = targetOf(options.certificate)
  if ('wrong' in target) {
    options.print(target.wrong)
    return 1
  }
  const { registry, status, policies, things } = options
  const wanted: Decision = {
    registry,
    status,
    ...target,
    ...(policies.length > 0 && { policies }),
    ...(things.length > 0 && { things }),
  }
  const answer = await ask(settings.admin.socket, '/certificates', 'POST', wanted)
  if (answer.kind !== 'answer' || answer.status !== 200) return complain(options.print, answer)
  // Our own answer to a request of ours.
  const done = answer.body as { readonly registry: string; readonly fingerprint: string; readonly status: string }
  options.print(`${done.registry}  ${done.fingerprint}  ${done.status}`)
  return 0
}

export function settingsOf({ file, env, print }: CertsOptions): Settings | null {
  const loaded = loadSettings(configOf(file), env)
  if (loaded.kind === 'valid') return loaded.settings
  for (const issue of loaded.issues) print(formatIssue(issue))
  return null
}

function targetOf(text: string): Pick<Decision, 'certificate' | 'der'> | { readonly wrong: string } {
  if (statSync(text, { throwIfNoEntry: false })?.isFile() !== true) return { certificate: text }
  try {
    const { raw } = new X509Certificate(readFileSync(text))
    return { certificate: createHash('sha256').update(raw).digest('hex'), der: raw.toString('base64') }
  } catch {
    return { wrong: `${text} is not a certificate` }
  }
}

function listFiles(
  settings: Settings,
  env: NodeJS.ProcessEnv,
): { readonly listed: readonly Listed[] } | { readonly issues: readonly string[] } {
  const listed: Listed[] = []
  const issues: string[] = []
  for (const [name, { path, state }] of Object.entries(settings.registries)) {
    const read = readRegistry(path, { env, state: state !== null })
    const overlay = state === null ? null : new OverlayReader(state)
    const learned = overlay?.readOn()
    if (learned?.kind === 'damaged') issues.push(learned.issue)
    if (read.kind === 'invalid') issues.push(...read.issues)
    else listed.push(...listOf(name, read.contents, overlay))
  }
  return issues.length > 0 ? { issues } : { listed }
}

type Answer =
  | { readonly kind: 'answer'; readonly status: number; readonly body: unknown }
  /** Nobody listens: no process runs with this configuration. */
  | { readonly kind: 'nobody' }
  | { readonly kind: 'failed'; readonly message: string }

const TIMEOUT_MS = 10_000
/** A list of some hundred thousand certificates. */
const MAX_ANSWER_BYTES = 256 * 1024 * 1024

/** One request to the admin socket of the running process. */
export function ask(
  socketPath: string,
  path: string,
  method: 'GET' | 'POST',
  body?: unknown,
  timeout: number = TIMEOUT_MS,
): Promise<Answer> {
  return new Promise((settle) => {
    const headers = { 'content-type': 'application/json' }
    const asked = request({ socketPath, path, method, headers, timeout }, (response) => {
      const chunks: Buffer[] = []
      let length = 0
      response.on('data', (chunk: Buffer) => {
        length += chunk.length
        if (length > MAX_ANSWER_BYTES) asked.destroy(new Error('the answer is too long'))
        else chunks.push(chunk)
      })
      response.on('error', (error) => settle({ kind: 'failed', message: error.message }))
      response.on('end', () => {
        try {
          const text = Buffer.concat(chunks).toString('utf8')
          settle({ kind: 'answer', status: response.statusCode ?? 0, body: JSON.parse(text) })
        } catch {
          settle({ kind: 'failed', message: 'the answer is not JSON' })
        }
      })
    })
    asked.on('timeout', () => asked.destroy(new Error(`no answer in ${timeout} ms`)))
    asked.on('error', (error: NodeJS.ErrnoException) => {
      const nobody = error.code === 'ECONNREFUSED' || error.code === 'ENOENT' || error.code === 'FailedToOpenSocket'
      settle(nobody ? { kind: 'nobody' } : { kind: 'failed', message: error.message })
    })
    asked.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

export function complain(print: Print, answer: Answer): number {
  if (answer.kind === 'nobody')
    print('no brokergate runs with this configuration; start it, for it is the one that writes')
  else if (answer.kind === 'failed') print(answer.message)
  else {
    const { body, status } = answer
    const said = typeof body === 'object' && body !== null && 'error' in body ? String(body.error) : `status ${status}`
    print(said)
  }
  return 1
}
