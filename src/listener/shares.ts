import { type Link, Ring } from '../collections/ring.ts'
import { Table } from '../collections/table.ts'

/** Whoever waits: for whom, and from where. */
export interface Sharer {
  readonly tenant: string
  readonly address: string
  /** Among those of its address; null where it does not wait. */
  place: Link<Sharer> | null
}

/** Those who wait from one address, the oldest first. There is at least one. */
interface Crowd {
  readonly address: string
  readonly waiting: Ring<Sharer>
  turn: Link<Crowd>
}

interface Tenant {
  readonly name: string
  size: number
  readonly crowds: Table<Crowd>
  readonly turns: Ring<Crowd>
  turn: Link<Tenant>
}

/**
 * A queue that nobody can eat: tenants have turns, within a tenant its addresses have turns, and within an address the
 * oldest is first. Every turn is one handshake, so this is deficit round robin with one price for all.
 */
export class Shares<T extends Sharer> {
  size = 0
  readonly #tenants = new Table<Tenant>()
  /** The next one's turn is first; whoever had a turn goes to the end. */
  readonly #turns = new Ring<Tenant>()

  add(entry: T): void {
    const tenant = this.#tenants.get(entry.tenant) ?? this.#newTenant(entry.tenant)
    const crowd = tenant.crowds.get(entry.address) ?? newCrowd(tenant, entry.address)
    entry.place = crowd.waiting.add(entry)
    tenant.size++
    this.size++
  }

  /** Who is next, of those who may; taken out. */
  next(may: (entry: T) => boolean): T | null {
    let crowd: Crowd | undefined
    const tenant = this.#turns.find(({ turns }) => {
      crowd = turns.find(({ waiting }) => may(waiting.first as T))
      return crowd !== undefined
    })
    if (tenant === undefined || crowd === undefined) return null
    const entry = crowd.waiting.first as T
    this.remove(entry)
    // To the end of the turns, where they are still among them.
    if (tenant.turns.remove(crowd.turn)) crowd.turn = tenant.turns.add(crowd)
    if (this.#turns.remove(tenant.turn)) tenant.turn = this.#turns.add(tenant)
    return entry
  }

  remove(entry: T): boolean {
    const { place } = entry
    const tenant = this.#tenants.get(entry.tenant)
    const crowd = tenant?.crowds.get(entry.address)
    if (place === null || tenant === undefined || crowd === undefined || !crowd.waiting.remove(place)) return false
    entry.place = null
    this.size--
    tenant.size--
    if (crowd.waiting.size === 0) {
      tenant.crowds.delete(crowd.address)
      tenant.turns.remove(crowd.turn)
    }
    if (tenant.size === 0) {
      this.#tenants.delete(tenant.name)
      this.#turns.remove(tenant.turn)
    }
    return true
  }

  /** The oldest of the address that has most, in the tenant that has most: who has to go when there is no room. */
  heaviest(): T | null {
    const most = largest(this.#turns, ({ size }) => size)
    const crowd = most === null ? null : largest(most.turns, ({ waiting }) => waiting.size)
    return (crowd?.waiting.first as T | undefined) ?? null
  }

  #newTenant(name: string): Tenant {
    const tenant = { name, size: 0, crowds: new Table<Crowd>(), turns: new Ring<Crowd>() } as Tenant
    tenant.turn = this.#turns.add(tenant)
    this.#tenants.set(name, tenant)
    return tenant
  }
}

function newCrowd(tenant: Tenant, address: string): Crowd {
  const crowd = { address, waiting: new Ring<Sharer>() } as Crowd
  crowd.turn = tenant.turns.add(crowd)
  tenant.crowds.set(address, crowd)
  return crowd
}

/** The first of the largest ones. */
function largest<V>(all: Iterable<V>, sizeOf: (one: V) => number): V | null {
  let most: V | null = null
  for (const one of all) if (most === null || sizeOf(one) > sizeOf(most)) most = one
  return most
}
