import type { Generation } from './assemble.ts'
import type { Members } from './collections/ring.ts'
import type { Leaving } from './control/farewell.ts'
import type { Material } from './generation/material.ts'
import type { Listener } from './listener/listener.ts'
import type { LiveSession, Parting } from './mqtt/session-contract.ts'

/** A proxy that accepts, in this process. */
export interface Running {
  readonly listeners: readonly Pick<Listener, 'host' | 'port'>[]
  /** Connections and sessions of this process. */
  readonly live: { readonly connections: number; readonly sessions: number }
  /** Every session of this process, to be looked at and ended. */
  readonly sessions: Members<LiveSession>
  /** Those of the generation in force, by their names in the settings. */
  readonly registries: Generation['registries']
  /** An overlay has grown: whoever has it reads on. */
  readOverlay(registry: string): void
  /** Makes the next generation, with all that can go wrong; issues say why there is none. Nothing has changed yet. */
  prepare(material: Material): Promise<Prepared | { readonly issues: readonly string[] }>
  /** The answer of `StartOptions.shedding` has changed. */
  shed(): void
  /** Closes the listeners. Who is on the way in may still come in; HTTP connections end with their running request. */
  stopAccepting(): Promise<void>
  /** From now on this is the answer to CONNECT. */
  turnAway(parting: Pick<Parting, 'code' | 'serverReference'>): void
  /** Whoever is on the way in stops there. */
  stopEntering(): void
  /** Everybody who has to be told to go. */
  leaving(): Iterable<Leaving>
  /** Ends what is left. */
  close(): Promise<void>
}

/** A change of the settings that has been made possible, and waits for the word. */
export interface Prepared {
  /** From here on it counts. */
  commit(): void
  /** As if it had never been. */
  abort(): Promise<void>
}
