import { X509Certificate } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseDocument } from 'yaml'
import { looseRights } from '../file-rights.ts'
import { type PolicyDocument, parsePolicyDocument } from '../policy/document.ts'
import { readAuthorizers } from './authorizer-reader.ts'
import type { AutoRegister, RegisteredCa } from './cas.ts'
import { CertificateIndex, sha256 } from './certificate-index.ts'
import { type RegistryContents, registryOf } from './contents.ts'
import { certificateParts } from './der.ts'
import type { AccessKey, AuthorizerEntry, Thing } from './entries.ts'
import type { Registry } from './registry.ts'
import { REGISTRY_FILE, type RegistryFile } from './schema.ts'
import { readSecret, warnIfLoose } from './secret.ts'
import { codeOf, Findings, type Path, readText, Source } from './source.ts'
import { parseTemplate } from './template.ts'

export type RegistryFiles = ValidRegistryFiles | InvalidRegistryFiles

export interface ValidRegistryFiles {
  readonly kind: 'valid'
  readonly contents: RegistryContents
  /** The contents alone, without what the program learns. */
  readonly registry: Registry
  /** Every file that was read, to be watched. */
  readonly files: readonly string[]
  /** What works but should not stay so, in the form of the issues. */
  readonly warnings: readonly string[]
}

export interface InvalidRegistryFiles {
  readonly kind: 'invalid'
  readonly issues: readonly string[]
  readonly files: readonly string[]
}

export interface ReadRegistryOptions {
  /** Where `{ env: … }` looks. */
  readonly env?: NodeJS.ProcessEnv
  /** True if there is a place to write down what is learnt; without one nothing can register itself. */
  readonly state?: boolean
}

/** A certificate is one or two KiB; a larger file is something else. */
const MAX_PEM_BYTES = 64 * 1024
const MAX_DOCUMENT_BYTES = 256 * 1024
/** A file of a few hundred thousand users with their hashes. */
const MAX_USERS_BYTES = 64 * 1024 * 1024

/** Reads and joins every `*.yaml` of a folder. All that is wrong comes at once, each as `file:line: path: message`. */
export function readRegistry(folder: string, options: ReadRegistryOptions = {}): RegistryFiles {
  const findings = new Findings()
  const reading = new Reading(options.env ?? process.env, options.state ?? false)
  const yaml = yamlFiles(folder, findings)
  for (const file of yaml) {
    const source = Source.read(file, findings)
    if (source === null) continue
    const parsed = REGISTRY_FILE.safeParse(source.toValue())
    if (parsed.success) reading.add(source, parsed.data)
    else for (const issue of parsed.error.issues) source.schemaIssue(issue)
  }
  reading.finish()
  const files = [...findings.files]
  if (findings.issues.length > 0) return { kind: 'invalid', issues: findings.issues, files }
  const contents = reading.contents()
  // Whoever can change these can let anybody in.
  for (const file of [folder, ...yaml]) {
    for (const problem of looseRights(file, 'settings')) findings.warnings.push(`${file}:1: : ${problem}`)
  }
  return { kind: 'valid', contents, registry: registryOf(contents, null), files, warnings: findings.warnings }
}

function yamlFiles(folder: string, findings: Findings): readonly string[] {
  try {
    // Names with a dot in front are an editor's, or Kubernetes' own in a mounted ConfigMap.
    const names = readdirSync(folder).filter((name) => /^[^.].*\.yaml$/.test(name))
    return names.sort().map((name) => join(folder, name))
  } catch (error) {
    findings.issues.push(`${folder}:1: : cannot be read: ${codeOf(error)}`)
    return []
  }
}

/** A name that is used before it is known whether somebody defines it. */
interface Use {
  readonly source: Source
  readonly path: Path
  readonly name: string
}

/** The sections of all files while they are joined. */
class Reading {
  readonly #env: NodeJS.ProcessEnv
  readonly #state: boolean
  readonly #things = new Map<string, Thing>()
  readonly #policies = new Map<string, PolicyDocument>()
  readonly #certificates = new CertificateIndex()
  readonly #cas = new Map<string, RegisteredCa>()
  readonly #accessKeys = new Map<string, AccessKey>()
  readonly #authorizers = new Map<string, AuthorizerEntry>()
  /** Kind and name → the place that defined it first. */
  readonly #defined = new Map<string, { readonly source: Source; readonly path: Path }>()
  readonly #uses: { readonly thing: Use[]; readonly policy: Use[] } = { thing: [], policy: [] }

  constructor(env: NodeJS.ProcessEnv, state: boolean) {
    this.#env = env
    this.#state = state
  }

  add(source: Source, file: RegistryFile): void {
    for (const [name, { type, attributes }] of Object.entries(file.things)) {
      if (!this.#isNew('thing', name, source, ['things', name])) continue
      this.#things.set(name, { name, typeName: type ?? null, attributes })
    }
    for (const [name, value] of Object.entries(file.policies)) this.#addPolicy(source, name, value)
    for (const [at, entry] of file.certificates.entries()) this.#addCertificate(source, ['certificates', at], entry)
    for (const [at, entry] of file.cas.entries()) this.#addCa(source, ['cas', at], entry)
    for (const [at, entry] of file.accessKeys.entries()) this.#addAccessKey(source, ['accessKeys', at], entry)
    this.#addAuthorizers(source, file.authorizers)
  }

  /** Looks whether every name that was used exists. */
  finish(): void {
    // Where a policy or thing could not be read, its own issue says all there is to say.
    for (const { source, path, name } of this.#uses.thing) {
      if (!this.#defined.has(`thing ${name}`)) source.issue(path, `no such thing: ${name}`)
    }
    for (const { source, path, name } of this.#uses.policy) {
      if (!this.#defined.has(`policy ${name}`)) source.issue(path, `no such policy: ${name}`)
    }
  }

  contents(): RegistryContents {
    return {
      certificates: this.#certificates,
      things: this.#things,
      policies: this.#policies,
      cas: [...this.#cas.values()],
      accessKeys: this.#accessKeys,
      authorizers: this.#authorizers,
    }
  }

  #isNew(kind: string, name: string, source: Source, path: Path, what = `this ${kind} is defined already`): boolean {
    const first = this.#defined.get(`${kind} ${name}`)
    if (first !== undefined) source.issue(path, `${what}, at ${first.source.place(first.path)}`)
    else this.#defined.set(`${kind} ${name}`, { source, path })
    return first === undefined
  }

  #use(kind: 'thing' | 'policy', source: Source, path: Path, names: readonly string[]): void {
    for (const [at, name] of names.entries()) this.#uses[kind].push({ source, path: [...path, at], name })
  }

  #addPolicy(source: Source, name: string, value: unknown): void {
    const path = ['policies', name]
    if (!this.#isNew('policy', name, source, path)) return
    const file = fileOf(value)
    // As text, so that a key that stands there twice is seen.
    const text = file === null ? null : source.readFile([...path, 'file'], file, MAX_DOCUMENT_BYTES)
    if (file !== null && text === null) return
    const parsed = parsePolicyDocument(text === null ? value : text.toString('utf8'))
    if (parsed.kind === 'document') {
      this.#policies.set(name, parsed.document)
      return
    }
    for (const issue of parsed.issues) {
      if (file === null) source.issue([...path, ...stepsOf(issue.path)], issue.message)
      else source.issue([...path, 'file'], `${source.resolve(file)}: ${issue.path}: ${issue.message}`)
    }
  }

  #addCertificate(source: Source, path: Path, wanted: RegistryFile['certificates'][number]): void {
    this.#use('thing', source, [...path, 'things'], wanted.things)
    this.#use('policy', source, [...path, 'policies'], wanted.policies)
    const der =
      wanted.file === undefined ? null : (readCertificate(source, [...path, 'file'], wanted.file)?.raw ?? null)
    if (wanted.file !== undefined && der === null) return
    const fingerprint = der === null ? wanted.fingerprint! : sha256(der)
    if (!this.#isNew('certificate', fingerprint, source, path, 'this certificate is registered already')) return
    if (der === null && wanted.status !== 'ACTIVE') {
      const advice = 'give the file, so that altered copies are refused too'
      source.warn(path, `${wanted.status} by fingerprint only: ${advice}`)
    }
    const { status, policies, things, exclusive } = wanted
    this.#certificates.set({ fingerprint, status, der, policies, things, exclusive })
  }

  #addCa(source: Source, path: Path, wanted: RegistryFile['cas'][number]): void {
    const autoRegister = this.#autoRegister(source, [...path, 'autoRegister'], wanted.autoRegister)
    const certificate = readCertificate(source, [...path, 'file'], wanted.file)
    if (certificate === null || autoRegister === null) return
    if (!certificate.ca || certificateParts(certificate.raw) === null) {
      source.issue([...path, 'file'], 'is not the certificate of a CA (basicConstraints)')
      return
    }
    const id = sha256(certificate.raw)
    if (!this.#isNew('CA', id, source, path)) return
    const { status, maxPerMinute } = wanted
    this.#cas.set(id, { id, certificate, status, autoRegister, maxPerMinute })
  }

  /** Null after adding an issue. */
  #autoRegister(source: Source, path: Path, wanted: RegistryFile['cas'][number]['autoRegister']): AutoRegister | null {
    if (wanted === 'no') return { kind: 'no' }
    if (!this.#state) {
      source.issue(path, 'needs a place to write down what is registered: set `state` of the registry in the settings')
      return null
    }
    if (wanted === 'pending') return { kind: 'pending' }
    const inside = [...path, 'template']
    const input = typeof wanted.template === 'string' ? readJson(source, inside, wanted.template) : wanted.template
    if (input === undefined) return null
    const parsed = parseTemplate(input)
    if (parsed.kind === 'template') {
      this.#use('policy', source, inside, parsed.template.policies)
      return { kind: 'template', template: parsed.template }
    }
    for (const issue of parsed.issues) {
      if (typeof wanted.template !== 'string') source.issue([...inside, ...issue.path], issue.message)
      else
        source.issue(
          inside,
          `${source.resolve(wanted.template)}: ${issue.path.map(String).join('.')}: ${issue.message}`,
        )
    }
    return null
  }

  #addAccessKey(source: Source, path: Path, wanted: RegistryFile['accessKeys'][number]): void {
    this.#use('policy', source, [...path, 'policies'], wanted.policies)
    const secret = readSecret(source, [...path, 'secret'], wanted.secret, this.#env)
    const sessionToken =
      wanted.sessionToken === undefined
        ? null
        : readSecret(source, [...path, 'sessionToken'], wanted.sessionToken, this.#env)
    if (!this.#isNew('access key', wanted.id, source, path)) return
    const { id, status, policies } = wanted
    if (secret === null || (wanted.sessionToken !== undefined && sessionToken === null)) return
    this.#accessKeys.set(id, { id, secret, sessionToken, status, policies })
  }

  #addAuthorizers(source: Source, form: RegistryFile['authorizers']): void {
    const { entries, issues } = readAuthorizers(form, {
      resolve: (path) => source.resolve(path),
      readFile: (file) => readText(file, MAX_USERS_BYTES),
      env: (name) => this.#env[name],
    })
    for (const { path, message } of issues) source.issue(['authorizers', ...path], message)
    for (const [name, wanted] of Object.entries(form)) {
      const path = ['authorizers', name]
      for (const [at, file] of secretFilesOf(source, wanted)) warnIfLoose(source, [...path, ...at], file)
      if ('policies' in wanted) this.#use('policy', source, [...path, 'policies'], wanted.policies)
      const entry = entries.get(name)
      if (this.#isNew('authorizer', name, source, path) && entry !== undefined) this.#authorizers.set(name, entry)
    }
  }
}

/** The files in which an authorizer has its secrets, each by where it is named. */
function secretFilesOf(
  source: Source,
  wanted: RegistryFile['authorizers'][string],
): readonly (readonly [at: readonly string[], file: string])[] {
  if (wanted.kind === 'password') return [[['file'], source.resolve(wanted.file)]]
  if (wanted.kind !== 'webhook') return []
  return Object.entries(wanted.headers).flatMap(([name, value]) => {
    const at = ['headers', name]
    if (typeof value === 'string') return [[at, source.file] as const]
    return 'file' in value ? [[at, source.resolve(value.file)] as const] : []
  })
}

/** `{ file: … }` in the place of a document; a document never has only this. */
function fileOf(value: unknown): string | null {
  if (typeof value !== 'object' || value === null || !('file' in value)) return null
  return Object.keys(value).length === 1 && typeof value.file === 'string' ? value.file : null
}

/** `Statement[0].Effect` as the steps that lead there. */
function stepsOf(path: string): readonly (string | number)[] {
  return [...path.matchAll(/\[(\d+)\]|[^.[\]]+/g)].map(([step, index]) => (index === undefined ? step : Number(index)))
}

/** JSON, or YAML of the same; undefined after adding an issue. */
function readJson(source: Source, path: Path, name: string): unknown {
  const bytes = source.readFile(path, name, MAX_DOCUMENT_BYTES)
  if (bytes === null) return undefined
  const document = parseDocument(bytes.toString('utf8'), { prettyErrors: false, stringKeys: true })
  const fault = document.errors[0] ?? document.warnings[0]
  if (fault === undefined) {
    try {
      return document.toJS() ?? null
    } catch {
      source.issue(path, `${source.resolve(name)}: aliases that unfold without end`)
      return undefined
    }
  }
  const line = bytes.toString('utf8').slice(0, fault.pos[0]).split('\n').length
  source.issue(path, `${source.resolve(name)}:${line}: ${fault.message.replace(/: .*/s, '')}`)
  return undefined
}

const BEGIN = '-----BEGIN CERTIFICATE-----'

/** The only certificate in a PEM file; null after adding an issue. */
function readCertificate(source: Source, path: Path, name: string): X509Certificate | null {
  const bytes = source.readFile(path, name, MAX_PEM_BYTES)
  if (bytes === null) return null
  const file = source.resolve(name)
  const pem = bytes.toString('latin1')
  const count = pem.split(BEGIN).length - 1
  if (count !== 1) {
    source.issue(path, `${file} holds ${count} PEM certificates; one is needed`)
    return null
  }
  try {
    return new X509Certificate(pem.slice(pem.indexOf(BEGIN)))
  } catch (error) {
    source.issue(path, `${file} cannot be read as a certificate: ${codeOf(error)}`)
    return null
  }
}
