import { type AssembleOptions, assemble, type Generation, servedFor } from './assemble.ts'
import { identifier } from './auth/identify.ts'
import type { Settings } from './config/schema.ts'
import type { SecuredConnection } from './connection.ts'
import type { Metrics } from './control/metrics.ts'
import { ProxyError } from './errors.ts'
import { Generations } from './generation/generations.ts'
import type { Material } from './generation/material.ts'
import { type Host, type Service, serviceOf } from './generation/service.ts'
import { SharedParts } from './generation/shared.ts'
import { createForwarder } from './https/forward.ts'
import type { FrontParts } from './https/parts.ts'
import { addressMatcher } from './listener/addresses.ts'
import { Doors, type DoorsChange } from './listener/doors.ts'
import { Acceptor, type Capacity, type Listener, type ListenerOptions } from './listener/listener.ts'
import { KeepAliveWheel } from './mqtt/keep-alive.ts'
import { Lifetimes } from './mqtt/lifetimes.ts'
import { type DeniedAction, type LiveSession, mqttHandler } from './mqtt/session.ts'
import { createServe, type Parts } from './proxy.ts'
import type { RegistryLog } from './registry/live.ts'
import type { RegisteredEvent, Registrar } from './registry/self-registration.ts'
import type { Store } from './store/store.ts'
import type { TicketSecret } from './store/ticket-secret.ts'
import type { Domain } from './tls/domains.ts'
import { RefusedResumptions } from './tls/tickets.ts'

export interface StartOptions {
  readonly metrics: Metrics
  /** Told of every thing in the settings that works but should not stay so. */
  readonly warn: (text: string) => void
  readonly embeddedPath: string
  readonly capacity: Capacity
  /** Told of reloads. */
  readonly log: RegistryLog
  /** Writes down which devices registered themselves. */
  readonly registrar: Registrar
  /** Told at every attempt of a device that registered itself and waits to be activated. */
  readonly registered: (event: RegisteredEvent) => void
  /** Told once of every connection, for the log. */
  readonly ended: Parts['ended']
  /** Told of every HTTP request, for the log. */
  readonly answered: FrontParts['answered']
  /** Told of what policies deny, per packet. */
  readonly denied: (told: DeniedAction) => void
  /** Who has which client id, among all processes. */
  readonly store: Store
  /** What keys of session tickets are made of, in all processes. */
  readonly ticketSecret: TicketSecret
  /** Told of the generations that live, the oldest first, whenever that changes. */
  readonly generations: (live: readonly number[]) => void
  /** This counts from now on, the first one included. */
  readonly committed: (material: Material) => void
}

/** A change of the settings that has been made possible, and waits for the word. */
export interface Prepared {
  /** From here on it counts. */
  commit(): void
  /** As if it had never been. */
  abort(): Promise<void>
}

/** A proxy that accepts, in this process. */
export interface Running {
  readonly listeners: readonly Pick<Listener, 'host' | 'port'>[]
  /** Connections and sessions of this process. */
  readonly live: { readonly connections: number; readonly sessions: number }
  /** Every session of this process, to be looked at and ended. */
  readonly sessions: ReadonlySet<LiveSession>
  /** Those of the generation in force, by their names in the settings. */
  readonly registries: Generation['registries']
  /** An overlay has grown: whoever has it reads on. */
  readOverlay(registry: string): void
  /** Makes the next generation, with all that can go wrong; issues say why there is none. Nothing has changed yet. */
  prepare(material: Material): Promise<Prepared | { readonly issues: readonly string[] }>
  stopAccepting(): Promise<void>
  /** Ends the sessions evenly over the grace period, each with its farewell; resolves when none is left, or after it. */
  endSessions(graceMs: number): Promise<void>
}

export type Started =
  | { readonly kind: 'running'; readonly running: Running }
  | { readonly kind: 'refused'; readonly issues: readonly string[] }

/** Share of the grace period in which sessions are told to go; the rest is for their last bytes. */
const FAREWELL_SHARE = 0.8

/** Settings → parts → listeners. */
export async function start(material: Material, options: StartOptions): Promise<Started> {
  const begun = await Program.begin(material, options)
  return begun instanceof Program ? { kind: 'running', running: begun } : { kind: 'refused', issues: begun }
}

/** What lives as long as the process; all else belongs to a generation of the settings. */
class Program implements Running {
  readonly #options: StartOptions
  readonly #shared = new SharedParts()
  readonly #closing = new AbortController()
  readonly #acceptor: Acceptor
  readonly #doors: Doors
  readonly #host: Host
  /** Whose a domain is. */
  readonly #owners = new WeakMap<Domain, Service>()
  #generations: Generations<Service> | null = null
  #unwatch = () => {}

  static async begin(material: Material, options: StartOptions): Promise<Program | readonly string[]> {
    const program = new Program(options, await createForwarder())
    const prepared = await program.prepare(material)
    if ('issues' in prepared) return prepared.issues
    prepared.commit()
    return program
  }

  private constructor(options: StartOptions, forwarder: Host['forwarder']) {
    this.#options = options
    const { metrics } = options
    const refusedResumptions = new RefusedResumptions()
    const identify = identifier({
      metrics,
      refusedResumptions,
      authenticatorFor: ({ domain }, method) => this.#ownerOf(domain).generation.authenticator(domain.name, method),
    })
    const mqtt = mqttHandler({
      metrics,
      wheel: new KeepAliveWheel(),
      lifetimes: new Lifetimes(),
      store: options.store,
      identify,
      limitsFor: (domain) => this.#ownerOf(domain).sessionLimits,
      rulesFor: (domain) => this.#ownerOf(domain).rulesFor(domain),
      rulesInForce: (connection) => this.#rulesInForce(connection),
      backendFor: (domain) => this.#ownerOf(domain).generation.backend(domain.backend),
      denied: options.denied,
      tellFor: (domain) => this.#ownerOf(domain).tell,
    })
    const { answered, denied } = options
    this.#host = { metrics, mqtt, identify, forwarder, answered, denied }
    const serve = createServe({
      metrics,
      refusedResumptions,
      closing: this.#closing.signal,
      enter: () => this.#inForce.enter(),
      ended: options.ended,
    })
    this.#acceptor = new Acceptor(options.capacity, metrics, (socket, listener) => void serve(socket, listener))
    this.#doors = new Doors(this.#acceptor, (socket, listener) => this.#acceptor.serve(socket, listener))
  }

  get listeners() {
    return this.#doors.bound
  }

  get live() {
    return { connections: this.#acceptor.live, sessions: this.#host.mqtt.live.size }
  }

  get sessions(): ReadonlySet<LiveSession> {
    return this.#host.mqtt.live
  }

  get registries(): Generation['registries'] {
    return this.#inForce.current.generation.registries
  }

  readOverlay(registry: string): void {
    const all = Array.from(this.#inForce.all, ({ generation }) => generation.registries.get(registry))
    for (const live of new Set(all)) live?.readOverlay()
  }

  async prepare(material: Material): Promise<Prepared | { readonly issues: readonly string[] }> {
    const { number, settings, files } = material
    const { metrics, embeddedPath, log, registrar, registered, ticketSecret } = this.#options
    const assembling: AssembleOptions = {
      number,
      metrics,
      embeddedPath,
      log,
      registrar,
      registered,
      ticketSecret,
      read: (file) => contentsOf(files, file),
      shared: this.#shared,
      inForce: () => this.#generations?.current.generation ?? null,
    }
    const assembled = await assemble(settings, assembling)
    if (assembled.kind === 'refused') return { issues: assembled.issues }
    const { generation } = assembled
    try {
      const doors = await this.#doors.prepare(settings.listeners.map(listenerOptions))
      if (typeof doors === 'string') {
        await generation.close()
        return { issues: [doors] }
      }
      const service = serviceOf(generation, this.#host)
      return {
        commit: () => {
          this.#commit(service, doors)
          this.#options.committed(material)
        },
        abort: () => {
          doors.abort()
          return generation.close()
        },
      }
    } catch (error) {
      await generation.close()
      throw error
    }
  }

  async stopAccepting(): Promise<void> {
    this.#acceptor.stop()
    await this.#doors.close()
    this.#closing.abort(new ProxyError('ERR_DRAINING', 'this process is shutting down'))
  }

  async endSessions(graceMs: number): Promise<void> {
    const until = performance.now() + graceMs
    const forwarded = Array.from(this.#inForce.all, ({ https }) => [...https.live]).flat()
    const sessions = [...this.#host.mqtt.live, ...forwarded]
    const paceMs = (graceMs * FAREWELL_SHARE) / Math.max(1, sessions.length)
    const timers = sessions.map((session, index) => setTimeout(() => session.close('ERR_DRAINING'), index * paceMs))
    while (this.#acceptor.live > 0 && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 50))
    for (const timer of timers) clearTimeout(timer)
    this.#unwatch()
    await this.#inForce.close()
  }

  get #inForce(): Generations<Service> {
    // Nothing is accepted before the first generation counts.
    return this.#generations!
  }

  #ownerOf(domain: Domain): Service {
    const owner = this.#owners.get(domain)
    if (owner === undefined) throw new Error(`the domain ${domain.name} is of no generation`)
    return owner
  }

  #rulesInForce(connection: SecuredConnection) {
    const { domains, rulesFor } = this.#inForce.current
    const domain = servedFor(domains, connection)
    return domain === null ? null : rulesFor(domain)
  }

  /** One turn of the event loop, in which nobody is served by half of each. */
  #commit(service: Service, doors: DoorsChange): void {
    const { log, warn, generations: changed } = this.#options
    const { generation } = service
    for (const domain of generation.domains.all) this.#owners.set(domain, service)
    for (const warning of generation.warnings) warn(warning)
    const judge = () => {
      this.#host.mqtt.rejudge().catch((error: unknown) => {
        log.error({ error }, 'live sessions could not be judged again')
      })
    }
    this.#unwatch()
    this.#unwatch = generation.watch(judge)
    if (this.#generations === null) {
      const failed = (error: unknown) => log.error({ error }, 'a former generation could not be closed in good order')
      this.#generations = new Generations(service, { changed, failed })
    } else {
      this.#generations.replace(service)
      judge()
    }
    doors.commit()
  }
}

function contentsOf(files: Material['files'], file: string): string {
  const contents = files[file]
  if (contents === undefined) throw new Error(`${file} was not read`)
  return contents
}

function listenerOptions({ bind, as, proxyProtocol, helloTimeout }: Settings['listeners'][number]): ListenerOptions {
  return {
    host: bind.host,
    port: bind.port,
    as,
    proxyProtocol:
      proxyProtocol === null
        ? null
        : { versions: proxyProtocol.versions, trusts: addressMatcher(proxyProtocol.trustedSources) },
    helloTimeoutMs: helloTimeout,
  }
}
