import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { Command } from 'commander'
import { assemble } from '../assemble.ts'
import { NO_METRICS } from '../control/metrics.ts'
import { referencePages } from '../control/reference.ts'
import { decide, issue, list } from './certs.ts'
import { check, type Inspection } from './check.ts'
import { connections, kick } from './connections.ts'
import { healthcheck } from './healthcheck.ts'
import { drain, restart, status } from './operate.ts'
import { passwd } from './passwd.ts'
import { type SimulateOptions, simulate } from './policy.ts'
import { presignUrl } from './presign.ts'
import { reload } from './reload.ts'
import { run } from './run.ts'
import { schema } from './schema.ts'
import { version, versionOf } from './version.ts'

const print = (line: string): void => {
  process.stdout.write(line.endsWith('\n') ? line : `${line}\n`)
}

const collect = (value: string, before: readonly string[] = []): readonly string[] => [...before, value]

/** Certificates, keys, registries, revocation lists and TLS policies, looked at as `run` would, without starting it. */
const parts: Inspection = async (settings) => {
  const assembled = await assemble(settings, { number: 0, metrics: NO_METRICS, embeddedPath: '' })
  if (assembled.kind === 'refused') return assembled.issues
  for (const warning of assembled.generation.warnings) print(`warning: ${warning}`)
  await assembled.generation.close()
  return []
}

/** The commands; each ends with an exit code. */
export function program(): Command {
  const root = new Command('brokergate')
    .description('TLS-terminating, protocol-aware reverse proxy in front of MQTT brokers.')
    .version(versionOf())
    .showHelpAfterError()
  const config = ['-c, --config <file>', 'configuration file'] as const

  root
    .command('run', { isDefault: true })
    .description('serve; without -c with an embedded broker and development certificates in .brokergate/')
    .option(...config)
    .action(async (options: { config?: string }) => {
      // Explicitly: whatever is still open then (a device that drips, a listener of a half start) must not keep us.
      process.exit(await run({ file: options.config ?? null, env: process.env, print }))
    })
  root
    .command('check')
    .description('read the configuration and everything it names; exit 0, or 1 with every issue')
    .requiredOption(...config)
    .action(async (options: { config: string }) => {
      process.exitCode = await check({ file: options.config, env: process.env, inspections: [parts], print })
    })
  root
    .command('init')
    .description('write a commented configuration and a development PKI')
    .argument('<dir>', 'folder to make')
    .action(async (dir: string) => {
      const { init } = await import('./init.ts')
      process.exitCode = init(dir, print)
    })
  root
    .command('schema')
    .description('print the JSON Schema of the configuration, for editors')
    .option('--write-reference <dir>', 'write the reference pages of metrics, failures and log fields instead')
    .action((options: { writeReference?: string }) => {
      const dir = options.writeReference
      if (dir === undefined) {
        process.exitCode = schema(print)
        return
      }
      mkdirSync(dir, { recursive: true })
      for (const [name, text] of Object.entries(referencePages())) writeFileSync(join(dir, name), text)
    })
  root
    .command('healthcheck')
    .description('ask the metrics address of a running brokergate whether it is ready; exit 0 or 1')
    .option(...config)
    .option('--url <url>', 'address to ask instead of the one in the configuration')
    .action(async (options: { config?: string; url?: string }) => {
      process.exitCode = await healthcheck({
        file: options.config ?? null,
        url: options.url ?? null,
        env: process.env,
        print,
      })
    })
  root
    .command('reload')
    .description(
      'have the running process read its configuration again; exit 0 once it is in force, or 1 with every issue',
    )
    .requiredOption(...config)
    .option('--socket <path>', 'administration socket, instead of the one in the configuration')
    .action(async (options: { config: string; socket?: string }) => {
      process.exitCode = await reload({
        file: options.config,
        socket: options.socket ?? null,
        env: process.env,
        print,
      })
    })
  certificates(root)
  const live = root
    .command('connections')
    .description('the live sessions: client id, principal, domain, since when')
    .option(...config)
    .action(async (options: { config?: string }) => {
      process.exitCode = await connections({ file: options.config ?? null, env: process.env, print })
    })
  live
    .command('kick')
    .description('end the session of a client id; exit 0 when there was one')
    .argument('<client-id>', 'as the device knows it')
    .option(...config)
    .action(async (clientId: string, options: { config?: string }, command: Command) => {
      const file = options.config ?? command.parent?.opts<{ config?: string }>().config ?? null
      process.exitCode = await kick({ clientId, file, env: process.env, print })
    })
  root
    .command('status')
    .description('how the running process is: workers, drains, restarts')
    .option(...config)
    .option('--json', 'as the admin socket tells it')
    .action(async (options: { config?: string; json?: boolean }) => {
      const { config: file = null, json = false } = options
      process.exitCode = await status({ file, json, env: process.env, print })
    })
  root
    .command('drain')
    .description('end the running process as SIGTERM does; with --backend and --server: empty one server of a backend')
    .option(...config)
    .option('--backend <name>', 'backend of the settings')
    .option('--server <address>', 'host:port as in the settings, or the URL without its query')
    .option('--undo', 'let it have connections again')
    .action(async (options: { config?: string; backend?: string; server?: string; undo?: boolean }) => {
      const { config: file = null, backend = null, server = null, undo = false } = options
      process.exitCode = await drain({ file, backend, server, undo, env: process.env, print })
    })
  root
    .command('restart')
    .description('reload, then replace the workers one after the other by new ones, with the program as it is on disk')
    .option(...config)
    .action(async (options: { config?: string }) => {
      process.exitCode = await restart({ file: options.config ?? null, env: process.env, print })
    })
  root
    .command('presign')
    .description(
      'print a WebSocket URL signed with an access key (Signature Version 4), valid for some minutes from now',
    )
    .option('--url <url>', 'where to connect, such as wss://iot.example.com:8443')
    .option('--host <name>', 'instead of --url; else the first server name of --config')
    .option('--port <number>', 'with --host; else that of the first listener of --config that serves 443, else 443')
    .option('--region <name>', 'else AWS_REGION, else that of --config, else us-east-1')
    .option('--access-key-id <id>', 'else AWS_ACCESS_KEY_ID; secret in BROKERGATE_SECRET or AWS_SECRET_ACCESS_KEY')
    .option(...config)
    .option(
      '--access-key <id>',
      'an access key from a registry of --config, secret and session token with it; else its only one',
    )
    .option('--expires <seconds>', 'X-Amz-Expires; without it the gate alone decides how long the URL counts')
    .addHelpText('after', '\nA session token is taken from BROKERGATE_SESSION_TOKEN or AWS_SESSION_TOKEN.')
    .action((options: Readonly<Record<string, string | undefined>>) => {
      process.exitCode = presignUrl({
        url: options.url ?? null,
        host: options.host ?? null,
        port: options.port ?? null,
        region: options.region ?? null,
        accessKeyId: options.accessKeyId ?? null,
        accessKey: options.accessKey ?? null,
        file: options.config ?? null,
        expires: options.expires ?? null,
        env: process.env,
        now: () => new Date(),
        print,
        complain: (line) => process.stderr.write(`${line}\n`),
      })
    })
  root
    .command('policy')
    .description('work with policy documents')
    .command('simulate')
    .description(
      'say whether policies allow an action, and which statement decides; exit 0 allowed, 1 denied, 2 no question',
    )
    .argument('<action>', 'such as iot:Publish')
    .argument('<resource>', 'such as topic/a/b, client/c1 or a whole ARN')
    .requiredOption('-p, --policy <file>', 'policy document; several times: all taken together', collect)
    .option('--partition <name>', 'head of the ARN', 'aws')
    .option('--region <name>', 'head of the ARN', 'us-east-1')
    .option('--account <id>', 'head of the ARN', '000000000000')
    .option('--client-id <id>', 'MQTT client id; without it as over HTTPS')
    .option('--source-ip <address>', "the device's address", '192.0.2.1')
    .option('--server-name <name>', 'SNI')
    .option('--thing <name>', 'thing attached to the connection')
    .option('--thing-type <name>', 'its type')
    .option('--attribute <name=value>', 'one of its attributes; several times', collect, [])
    .option('--persistent', 'the CONNECT asks for a persistent session')
    .option('--will-topic <topic>', 'the CONNECT has a will on this topic')
    .option('--variable <name=value>', 'value of any variable; several times, also of one name', collect, [])
    .option('--at <date>', 'the time, instead of now')
    // 1 means denied here; what is not a question must not look like an answer.
    .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
    .action((action: string, resource: string, options: SimulateOptions) => {
      process.exitCode = simulate(options, action, resource, print)
    })
  root
    .command('passwd')
    .description(
      'print a line for the file of an authorizer of kind password; the password is read from standard input',
    )
    .argument('<user>', 'user name')
    .action(async (user: string) => {
      process.exitCode = await passwd({
        user,
        password: () => text(process.stdin),
        print,
        complain: (line) => process.stderr.write(`${line}\n`),
      })
    })
  root
    .command('version')
    .description('print the version and the runtime')
    .action(() => {
      process.exitCode = version(print)
    })
  return root
}

const STATUSES = [
  ['activate', 'ACTIVE', 'let a device connect that waits for it, or was switched off here'],
  ['deactivate', 'INACTIVE', 'refuse a device until it is activated again'],
  ['revoke', 'REVOKED', 'refuse a device for ever'],
] as const

function certificates(root: Command): void {
  const config = ['-c, --config <file>', 'configuration file; without it that of .brokergate/'] as const
  const certs = root.command('certs').description('device certificates: issue, list, activate, deactivate, revoke')
  certs
    .command('issue')
    .description('make a device certificate and its key with the development CA')
    .argument('<name>', 'common name, and name of the files')
    .option(...config)
    .option('--pki <dir>', 'folder with ca.pem and ca.key; without it pki/ beside the configuration')
    .option('--out <dir>', 'folder to write to; without it that of the CA')
    .option('--days <number>', 'how long it is valid; without it 825 days')
    .action(async (name: string, options: Readonly<Record<string, string | undefined>>) => {
      const { config: file = null, pki = null, out = null, days = null } = options
      process.exitCode = await issue({ name, file, pki, out, days, env: process.env, print })
    })
  certs
    .command('list')
    .description('every certificate of the registries with its status, things and policies')
    .option(...config)
    .action(async (options: { config?: string }) => {
      process.exitCode = await list({ file: options.config ?? null, env: process.env, print })
    })
  for (const [name, status, what] of STATUSES) {
    const command = certs
      .command(name)
      .description(`${what}; by the running process, in the state of the registry`)
      .argument('<certificate>', 'at least 8 digits of its fingerprint (SHA-256), or its PEM file')
      .option(...config)
      .option('--registry <name>', 'needed where there are several')
    if (status === 'ACTIVE') {
      command.option('--policy <name...>', 'policies to attach').option('--thing <name...>', 'things to attach')
    }
    command.action(
      async (
        certificate: string,
        options: { config?: string; registry?: string; policy?: string[]; thing?: string[] },
      ) => {
        const { config: file = null, registry = null, policy = [], thing = [] } = options
        const target = { certificate, registry, status, policies: policy, things: thing }
        process.exitCode = await decide({ ...target, file, env: process.env, print })
      },
    )
  }
}
