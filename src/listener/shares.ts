/** Whoever waits: for whom, and from where. */
export interface Sharer {
  readonly tenant: string
  readonly address: string
}

/**
 * A queue that nobody can eat: tenants have turns, within a tenant its addresses have turns, and within an address the
 * oldest is first. Every turn is one handshake, so this is deficit round robin with one price for all.
 */
export class Shares<T extends Sharer> {
  size = 0
  /** The next one's turn is first; whoever had a turn goes to the end. */
  readonly #tenants = new Map<string, Tenant<T>>()

  add(entry: T): void {
    let tenant = this.#tenants.get(entry.tenant)
    if (tenant === undefined) {
      tenant = { size: 0, addresses: new Map() }
      this.#tenants.set(entry.tenant, tenant)
    }
    const waiting = tenant.addresses.get(entry.address)
    if (waiting === undefined) tenant.addresses.set(entry.address, new Set([entry]))
    else waiting.add(entry)
    tenant.size++
    this.size++
  }

  /** Who is next, of those who may; taken out. */
  next(may: (entry: T) => boolean): T | null {
    for (const [name, tenant] of this.#tenants) {
      for (const [address, waiting] of tenant.addresses) {
        const [entry] = waiting
        if (entry === undefined || !may(entry)) continue
        this.remove(entry)
        rotate(tenant.addresses, address)
        rotate(this.#tenants, name)
        return entry
      }
    }
    return null
  }

  remove(entry: T): boolean {
    const tenant = this.#tenants.get(entry.tenant)
    const waiting = tenant?.addresses.get(entry.address)
    if (tenant === undefined || waiting === undefined || !waiting.delete(entry)) return false
    this.size--
    tenant.size--
    if (waiting.size === 0) tenant.addresses.delete(entry.address)
    if (tenant.size === 0) this.#tenants.delete(entry.tenant)
    return true
  }

  /** The oldest of the address that has most, in the tenant that has most: who has to go when there is no room. */
  heaviest(): T | null {
    let most: Tenant<T> | null = null
    for (const tenant of this.#tenants.values()) if (most === null || tenant.size > most.size) most = tenant
    let crowd: Set<T> | null = null
    for (const waiting of most?.addresses.values() ?? []) {
      if (crowd === null || waiting.size > crowd.size) crowd = waiting
    }
    const [oldest] = crowd ?? []
    return oldest ?? null
  }
}

interface Tenant<T> {
  size: number
  readonly addresses: Map<string, Set<T>>
}

/** To the end of the turns, where it is still among them. */
function rotate<V>(turns: Map<string, V>, key: string): void {
  const value = turns.get(key)
  if (value === undefined) return
  turns.delete(key)
  turns.set(key, value)
}
