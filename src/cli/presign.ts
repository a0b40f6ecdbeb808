import { presign } from '../auth/sigv4-sign.ts'
import { formatIssue, loadSettings } from '../config/load.ts'
import type { Settings } from '../config/schema.ts'
import type { AccessKey } from '../registry/entries.ts'
import { readRegistry } from '../registry/files.ts'
import type { Print } from './check.ts'

export interface PresignCommand {
  /** Where to connect, `wss://host[:port]`; null: `host` and `port`, or what `file` says. */
  readonly url: string | null
  readonly host: string | null
  readonly port: string | null
  readonly region: string | null
  /** With its secret from the environment. */
  readonly accessKeyId: string | null
  /** Of a registry of `file`; null with a file and no `accessKeyId`: the only one that is ACTIVE there. */
  readonly accessKey: string | null
  readonly file: string | null
  readonly expires: string | null
  readonly env: NodeJS.ProcessEnv
  readonly now: () => Date
  readonly print: Print
  /** Apart from the URL, which is often taken into a variable. */
  readonly complain: Print
}

interface Key {
  readonly id: string
  readonly secret: string
  readonly sessionToken: string | null
}

/** Seven days, the most that X-Amz-Expires can say. */
const MAX_EXPIRES_SECONDS = 604_800

/** For one line of complaint; nothing else throws it. */
class Unusable extends Error {}

const refuse = (message: string): never => {
  throw new Unusable(message)
}

/** `brokergate presign`: one line with a WebSocket URL that is signed for now; exit code 0, or 1 and why not. */
export function presignUrl(options: PresignCommand): number {
  try {
    const settings = options.file === null ? null : settingsOf(options.file, options.env)
    const url = urlOf(options, settings)
    const { id, secret, sessionToken } = keyOf(options, settings)
    const target = presign({
      // As clients send it: without the port where it is the scheme's own.
      host: url.host,
      path: '/mqtt',
      accessKeyId: id,
      secret,
      sessionToken,
      region: options.region ?? options.env.AWS_REGION ?? settings?.aws.region ?? 'us-east-1',
      service: 'iotdevicegateway',
      at: options.now(),
      expiresSeconds: options.expires === null ? null : expiresOf(options.expires),
    })
    options.print(`wss://${url.host}${target}`)
    return 0
  } catch (error) {
    if (!(error instanceof Unusable)) throw error
    options.complain(error.message)
    return 1
  }
}

function settingsOf(file: string, env: NodeJS.ProcessEnv): Settings {
  const loaded = loadSettings(file, env)
  return loaded.kind === 'valid' ? loaded.settings : refuse(loaded.issues.map(formatIssue).join('\n'))
}

function urlOf({ url, host, port }: PresignCommand, settings: Settings | null): URL {
  if (url !== null && (host !== null || port !== null)) refuse('--url already says host and port')
  const name = host ?? settings?.domains[0]?.serverNames[0] ?? null
  if (url === null && name === null) refuse('expected --url, --host or --config')
  const listener = settings?.listeners.find(({ as }) => as === 443)
  const text = url ?? `wss://${name}:${port ?? listener?.bind.port ?? 443}`
  const parsed = URL.canParse(text) ? new URL(text) : refuse('expected a URL such as wss://iot.example.com:8443')
  if (parsed.protocol !== 'wss:') refuse('expected a URL that begins with wss://')
  if (!['/', '', '/mqtt'].includes(parsed.pathname) || parsed.search !== '' || parsed.username !== '') {
    refuse('expected a URL of host and port alone: the path is always /mqtt')
  }
  return parsed
}

function keyOf({ accessKeyId, accessKey, env }: PresignCommand, settings: Settings | null): Key {
  if (accessKey !== null) {
    if (settings === null) return refuse('--access-key is looked up in the registries of --config')
    return registeredKey(accessKey, settings, env)
  }
  const id = accessKeyId ?? env.AWS_ACCESS_KEY_ID ?? null
  if (id === null && settings !== null) return onlyKey(settings, env)
  if (id === null) return refuse('expected --access-key-id, or --config and --access-key')
  const secret =
    env.BROKERGATE_SECRET ??
    env.AWS_SECRET_ACCESS_KEY ??
    refuse('expected the secret in BROKERGATE_SECRET or AWS_SECRET_ACCESS_KEY')
  return { id, secret, sessionToken: env.BROKERGATE_SESSION_TOKEN ?? env.AWS_SESSION_TOKEN ?? null }
}

function registeredKey(id: string, settings: Settings, env: NodeJS.ProcessEnv): Key {
  const key = keysOf(settings, env).find((one) => one.id === id)
  if (key === undefined) return refuse(`no registry has the access key ${id}`)
  return key.status === 'ACTIVE' ? key : refuse(`the access key ${id} is ${key.status}`)
}

function onlyKey(settings: Settings, env: NodeJS.ProcessEnv): Key {
  const keys = keysOf(settings, env).filter(({ status }) => status === 'ACTIVE')
  const [only] = keys
  if (only !== undefined && keys.length === 1) return only
  return refuse(
    only === undefined
      ? 'the registries of --config have no ACTIVE access key'
      : `expected --access-key, one of: ${keys.map(({ id }) => id).join(', ')}`,
  )
}

function keysOf(settings: Settings, env: NodeJS.ProcessEnv): readonly AccessKey[] {
  return Object.values(settings.registries).flatMap(({ path, state }) => {
    const read = readRegistry(path, { env, state: state !== null })
    if (read.kind === 'invalid') return refuse(read.issues.join('\n'))
    return [...read.contents.accessKeys.values()]
  })
}

function expiresOf(text: string): number {
  const seconds = /^\d{1,6}$/.test(text) ? Number(text) : 0
  if (seconds >= 1 && seconds <= MAX_EXPIRES_SECONDS) return seconds
  return refuse(`expected --expires in seconds, from 1 to ${MAX_EXPIRES_SECONDS}`)
}
