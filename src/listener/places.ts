import { Table } from '../collections/table.ts'
import { addressBytes } from './addresses.ts'

/** Where connections come from: an IPv4 address, or a network of IPv6. It exists while there is one. */
export interface Place {
  readonly key: string
  connections: number
  /** Handshakes under way from there. */
  inFlight: number
  /** Connections of devices that are known. */
  proved: number
}

/** Every place with a connection now. */
export class Places {
  ipv6Prefix: number
  readonly #places = new Table<Place>()

  constructor(ipv6Prefix: number) {
    this.ipv6Prefix = ipv6Prefix
  }

  enter(address: string): Place {
    const key = placeOf(address, this.ipv6Prefix)
    let place = this.#places.get(key)
    if (place === undefined) {
      place = { key, connections: 0, inFlight: 0, proved: 0 }
      this.#places.set(key, place)
    }
    place.connections++
    return place
  }

  leave(place: Place): void {
    if (--place.connections === 0) this.#places.delete(place.key)
  }

  get size(): number {
    return this.#places.size
  }
}

/** An IPv4 address as it is; of an IPv6 address the network, because whoever has one has all of it. */
export function placeOf(address: string, ipv6Prefix: number): string {
  if (!address.includes(':')) return address
  const zone = address.indexOf('%')
  const bytes = addressBytes(zone < 0 ? address : address.slice(0, zone))
  if (bytes === null || bytes.length !== 16) return address
  // Whole bytes, and the bits of one that is cut.
  const whole = ipv6Prefix >> 3
  const rest = ipv6Prefix & 7
  const hex = Buffer.from(bytes.buffer, bytes.byteOffset, whole).toString('hex')
  return rest === 0 ? `${hex}/${ipv6Prefix}` : `${hex}${(bytes[whole]! >> (8 - rest)).toString(16)}/${ipv6Prefix}`
}
