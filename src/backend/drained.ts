/** Servers of backends that get no new connections, because an operator empties them. */
export interface DrainedServer {
  readonly backend: string
  /** As `Upstream.peer` has it. */
  readonly server: string
}

/**
 * What is drained in this process. It outlives the backends that are made from the settings, so that a server stays
 * drained whatever is made anew.
 */
export class DrainedServers {
  #list: readonly DrainedServer[] = []
  readonly #listeners = new Set<() => void>()

  get list(): readonly DrainedServer[] {
    return this.#list
  }

  has(backend: string, server: string): boolean {
    return this.#list.some((one) => one.backend === backend && one.server === server)
  }

  /** In place of what was drained until now. */
  replace(list: readonly DrainedServer[]): void {
    this.#list = list
    for (const listener of this.#listeners) listener()
  }

  /** Told after every change; what it returns ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
