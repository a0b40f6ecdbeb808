import { type AssembleOptions, assemble, type Generation, servedFor } from './assemble.ts'
import { identifier } from './auth/identify.ts'
import { remembering } from './auth/remembered.ts'
import type { DrainedServers } from './backend/drained.ts'
import type { Members } from './collections/ring.ts'
import type { Settings } from './config/schema.ts'
import type { SecuredConnection } from './connection.ts'
import type { Leaving } from './control/farewell.ts'
import type { Metrics } from './control/metrics.ts'
import { ProxyError } from './errors.ts'
import { Generations } from './generation/generations.ts'
import type { Material } from './generation/material.ts'
import { type Host, type Service, serviceOf } from './generation/service.ts'
import { SharedParts } from './generation/shared.ts'
import type { Closable } from './https/conversation.ts'
import { createForwarder } from './https/forward.ts'
import type { FrontParts } from './https/parts.ts'
import { addressMatcher } from './listener/addresses.ts'
import { Doors, type DoorsChange } from './listener/doors.ts'
import { Governor } from './listener/governor.ts'
import { Acceptor, type Capacity, type ListenerOptions } from './listener/listener.ts'
import { Penalties } from './listener/penalties.ts'
import { Portions } from './listener/portions.ts'
import { KeepAliveWheel } from './mqtt/keep-alive.ts'
import { Lifetimes } from './mqtt/lifetimes.ts'
import { Seats } from './mqtt/seats.ts'
import { mqttHandler } from './mqtt/session.ts'
import type { DeniedAction, LiveSession, Parting } from './mqtt/session-contract.ts'
import { shields } from './mqtt/shield.ts'
import { createServe, type Parts } from './proxy.ts'
import type { RegistryLog } from './registry/live.ts'
import type { RegisteredEvent, Registrar } from './registry/self-registration.ts'
import type { Prepared, Running } from './running.ts'
import type { Store } from './store/store.ts'
import type { TicketSecret } from './store/ticket-secret.ts'
import type { Domain } from './tls/domains.ts'
import { RefusedResumptions } from './tls/tickets.ts'

/**
 * Newcomers whose ClientHello is read in a turn of the event loop, some 40 µs each, and whose CONNECT or request is, some
 * 200 µs with the dial of the broker. Most turns see fewer; in a storm live sessions wait for no more.
 */
const HELLOS_PER_TURN = 8
const SECURED_PER_TURN = 1

export interface StartOptions {
  readonly metrics: Metrics
  /** Told of every thing in the settings that works but should not stay so. */
  readonly warn: (text: string) => void
  readonly embeddedPath: string
  /** Servers of backends that get no new connections; absent: all do. */
  readonly drained?: DrainedServers
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
  /** How short this process is of time, memory or descriptors; absent: it never is. */
  readonly shedding?: () => Shedding
  /** What keys of session tickets are made of, in all processes. */
  readonly ticketSecret: TicketSecret
  /** Told of the generations that live, the oldest first, whenever that changes. */
  readonly generations: (live: readonly number[]) => void
  /** This counts from now on, the first one included. */
  readonly committed: (material: Material) => void
}

/** What there is too little of, and what follows from it. */
export interface Shedding {
  /** 1: only few full handshakes; 2: nothing new at all. */
  readonly stage: 0 | 1 | 2
}

export type Started =
  | { readonly kind: 'running'; readonly running: Running }
  | { readonly kind: 'refused'; readonly issues: readonly string[] }

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
  readonly #draining = new AbortController()
  readonly #forwarded = new WeakMap<Closable, Leaving>()
  readonly #acceptor: Acceptor
  readonly #doors: Doors
  readonly #host: Host
  readonly #governor: Governor
  readonly #penalties: Penalties
  /** Whose a domain is. */
  readonly #owners = new WeakMap<Domain, Service>()
  #generations: Generations<Service> | null = null
  #unwatch = () => {}

  static async begin(material: Material, options: StartOptions): Promise<Program | readonly string[]> {
    const program = new Program(material.settings, options, await createForwarder())
    const prepared = await program.prepare(material)
    if ('issues' in prepared) return prepared.issues
    prepared.commit()
    return program
  }

  private constructor(settings: Settings, options: StartOptions, forwarder: Host['forwarder']) {
    this.#options = options
    const { metrics } = options
    const counters = metrics.admission
    const refusedResumptions = new RefusedResumptions()
    const governor = new Governor({ settings: settings.governor, counters, waited: metrics.handshakeWaited })
    const penalties = new Penalties({ settings: settings.governor.refusals, counters })
    this.#governor = governor
    this.#penalties = penalties
    const identify = remembering(
      identifier({
        metrics,
        refusedResumptions,
        authenticatorFor: ({ domain }, method) => this.#ownerOf(domain).generation.authenticator(domain.name, method),
      }),
      {
        recall: (domain, fingerprint) => penalties.recall(domain, fingerprint),
        remember: (domain, fingerprint, code) => penalties.remember(domain, fingerprint, code),
        accepted({ domain, visit }) {
          if (visit === undefined) return
          governor.prove(visit)
          penalties.accepted(domain.name, visit.place)
        },
      },
      metrics,
    )
    const seats = new Seats({
      limitsFor: (domain) => this.#inForce.current.seatsOf(domain),
      overloaded: () => this.#stage === 2,
      counters,
    })
    const mqtt = mqttHandler({
      metrics,
      wheel: new KeepAliveWheel(),
      lifetimes: new Lifetimes(),
      store: options.store,
      identify,
      seats,
      limitsFor: (domain) => this.#ownerOf(domain).sessionLimits,
      rulesFor: (domain) => this.#ownerOf(domain).rulesFor(domain),
      rulesInForce: (connection) => this.#rulesInForce(connection),
      backendFor: (domain) => this.#ownerOf(domain).generation.backend(domain.backend),
      shieldFor: shields({ metrics, closing: this.#closing.signal, log: options.log }),
      denied: options.denied,
      tellFor: (domain) => this.#ownerOf(domain).tell,
    })
    const { answered, denied } = options
    this.#host = {
      metrics,
      mqtt,
      identify,
      forwarder,
      answered,
      denied,
      room: ({ name }) => seats.check(name),
      draining: this.#draining.signal,
    }
    const serve = createServe({
      metrics,
      refusedResumptions,
      governor,
      penalties,
      turns: { hello: new Portions(HELLOS_PER_TURN), secured: new Portions(SECURED_PER_TURN) },
      closing: this.#closing.signal,
      enter: () => this.#inForce.enter(),
      ended: options.ended,
    })
    this.#acceptor = new Acceptor(options.capacity, metrics, serve)
    this.#doors = new Doors(this.#acceptor, (socket, listener) => this.#acceptor.serve(socket, listener))
  }

  get listeners() {
    return this.#doors.bound
  }

  get live() {
    return { connections: this.#acceptor.live, sessions: this.#host.mqtt.live.size }
  }

  get sessions(): Members<LiveSession> {
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
    const { metrics, embeddedPath, drained, log, registrar, registered, ticketSecret } = this.#options
    const assembling: AssembleOptions = {
      number,
      metrics,
      embeddedPath,
      log,
      registrar,
      registered,
      ticketSecret,
      ...(drained !== undefined && { drained }),
      read: (file) => contentsOf(files, file),
      shared: this.#shared,
      inForce: () => this.#generations?.current.generation ?? null,
    }
    const assembled = await assemble(settings, assembling)
    if (assembled.kind === 'refused') return { issues: assembled.issues }
    const { generation } = assembled
    try {
      const doors = await this.#doors.prepare(settings.listeners.map((listener) => listenerOptions(listener, settings)))
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

  shed(): void {
    this.#governor.trickle(this.#stage === 0 ? null : this.#inForce.current.generation.settings.shedding.fullPerSecond)
    this.#acceptor.look()
  }

  async stopAccepting(): Promise<void> {
    this.#acceptor.stop()
    await this.#doors.close()
    this.#draining.abort()
  }

  turnAway(parting: Pick<Parting, 'code' | 'serverReference'>): void {
    this.#host.mqtt.turnAway(parting)
  }

  stopEntering(): void {
    const draining = new ProxyError('ERR_DRAINING', 'this process is shutting down')
    this.#governor.stop(draining)
    this.#closing.abort(draining)
  }

  leaving(): readonly Leaving[] {
    const forwarded = Array.from(this.#inForce.all, ({ https }) =>
      Array.from(https.live, (one) => this.#leavingOf(one, https.live)),
    )
    return [...this.#host.mqtt.live, ...forwarded.flat()]
  }

  async close(): Promise<void> {
    this.#unwatch()
    await this.#inForce.close()
  }

  get #stage(): Shedding['stage'] {
    return this.#options.shedding?.().stage ?? 0
  }

  /** A WebSocket of others, of which nothing is known but that it is open; the same one every time. */
  #leavingOf(forwarded: Closable, live: ReadonlySet<Closable>): Leaving {
    const known = this.#forwarded.get(forwarded)
    if (known !== undefined) return known
    const leaving: Leaving = {
      silence: 0,
      owed: 0,
      get gone() {
        return !live.has(forwarded)
      },
      leave: ({ code }) => forwarded.close(code),
    }
    this.#forwarded.set(forwarded, leaving)
    return leaving
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
      this.#penalties.clear()
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
      const { governor } = generation.settings
      this.#governor.configure(governor)
      this.#penalties.configure(governor.refusals)
      this.shed()
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

function listenerOptions(
  { bind, as, proxyProtocol, helloTimeout }: Settings['listeners'][number],
  { transport }: Pick<Settings, 'transport'>,
): ListenerOptions {
  return {
    host: bind.host,
    port: bind.port,
    as,
    proxyProtocol:
      proxyProtocol === null
        ? null
        : { versions: proxyProtocol.versions, trusts: addressMatcher(proxyProtocol.trustedSources) },
    helloTimeoutMs: helloTimeout,
    // The other ports have ways in that speak HTTP, which needs sockets of Node's.
    lift: transport === 'auto' && as === 8883,
  }
}
