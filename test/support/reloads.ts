import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Reloaded } from '../../src/control/reload.ts'
import { ca, eventually, server } from './e2e.ts'
import { folderFor, freePort, OPEN_POLICIES, type RunningProxy, startProxy, type Teardowns, write } from './proxy.ts'

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname

export interface Reloadable {
  readonly dir: string
  readonly proxy: RunningProxy
  readonly port: number
  readonly workers: number
  /** Writes the configuration with these parts changed; the rest is as `CONFIG` has it. */
  configure(parts?: Partial<Config>): void
  /** `brokergate reload`: its exit code and what it printed. */
  reload(): Promise<{ readonly code: number; readonly printed: string }>
  /** The same over the administration socket, without a command in between. */
  post(): Promise<Reloaded>
  status(): Promise<Status>
}

export interface Status {
  readonly generation: number
  readonly generations?: readonly number[]
  readonly workers: readonly { readonly pid: number; readonly generations: readonly number[] }[]
}

/** Lines of the configuration by section; each is written whole. */
export interface Config {
  readonly listeners: string
  readonly domains: string
  readonly registries: string
  readonly backends: string
  readonly rest: string
}

export const domain = (more = ''): string => `  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    registry: main
    clientTrust: { mode: ca, ca: [ ca.pem ], policies: [ devices ] }
    backend: main
${more}`

export interface ReloadableOptions {
  readonly workers: number
  readonly brokerPort: number
  readonly config?: (port: number) => Partial<Config>
  readonly files?: Readonly<Record<string, string>>
  readonly watch?: boolean
  readonly level?: string
  readonly prefix?: string[]
}

/** The real program, one domain `localhost` that trusts our CA, and everything that may be changed while it runs. */
export async function openReloadable(t: Teardowns, options: ReloadableOptions): Promise<Reloadable> {
  const dir = folderFor(t)
  const [port, metricsPort] = [await freePort(), await freePort()]
  write(dir, 'ca.pem', ca.certPem)
  write(dir, 'server.pem', server.chainPem)
  write(dir, 'server.key', server.keyPem)
  write(dir, 'registry/policies.yaml', OPEN_POLICIES)
  for (const [name, content] of Object.entries(options.files ?? {})) write(dir, name, content)
  const base: Config = {
    listeners: `  - { bind: "127.0.0.1:${port}", as: 8883 }`,
    domains: domain(),
    registries: '  main: { path: registry }',
    backends: `  main: { kind: tcp, servers: [ { address: "127.0.0.1:${options.brokerPort}" } ] }`,
    rest: '',
    ...options.config?.(port),
  }
  const configure = (parts: Partial<Config> = {}): void => {
    const { listeners, domains, registries, backends, rest } = { ...base, ...parts }
    write(
      dir,
      'brokergate.yaml',
      `listeners:
${listeners}
domains:
${domains}
registries:
${registries}
backends:
${backends}
metrics: { bind: "127.0.0.1:${metricsPort}" }
admin: { socket: admin.sock }
workers: ${options.workers}
reload: { watch: ${options.watch ?? false} }
drain: { grace: 5s }
log: { format: json, level: ${options.level ?? 'info'} }
${rest}
${process.env.TRANSPORT === undefined ? '' : `transport: ${process.env.TRANSPORT}`}
`,
    )
  }
  configure()
  const file = join(dir, 'brokergate.yaml')
  const proxy = await startProxy(t, file, metricsPort, options.prefix === undefined ? {} : { prefix: options.prefix })
  return {
    dir,
    proxy,
    port,
    workers: options.workers,
    configure,
    reload: () => command(['reload', '-c', file]),
    post: () => ask<Reloaded>(join(dir, 'admin.sock'), 'POST', '/reload'),
    status: () => ask<Status>(join(dir, 'admin.sock'), 'GET', '/status'),
  }
}

export async function command(args: readonly string[], cwd?: string): Promise<{ code: number; printed: string }> {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'], cwd })
  const exited = once(child, 'exit') as Promise<[number]>
  const [out, error] = await Promise.all([text(child.stdout), text(child.stderr)])
  const [code] = await exited
  return { code, printed: out + error }
}

/** What our own program answers on its own socket. */
async function ask<T>(socketPath: string, method: string, path: string): Promise<T> {
  const asked = request({ socketPath, path, method, agent: false })
  asked.end()
  const [response] = await once(asked, 'response')
  return JSON.parse(await text(response)) as T
}

/** The generations that live, over all processes, each once. */
export async function living(gate: Reloadable): Promise<readonly number[]> {
  const { generations, workers } = await gate.status()
  return [...new Set([...(generations ?? []), ...workers.flatMap((worker) => worker.generations)])].sort(
    (a, b) => a - b,
  )
}

/** One generation lives, everywhere, and it is this one. */
export async function settled(gate: Reloadable, generation: number): Promise<void> {
  await eventually(
    async () => JSON.stringify(await living(gate)) === JSON.stringify([generation]),
    `generation ${generation} alone`,
  )
}
