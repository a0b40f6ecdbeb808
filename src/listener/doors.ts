import type { AcceptedSocket } from '../connection.ts'
import type { ListenerOptions } from './listener.ts'

/** What binds: an `Acceptor`. */
export interface Binder {
  listen(options: ListenerOptions, accept: (socket: AcceptedSocket) => void): Promise<Bound>
}

/** A listening socket. */
export interface Bound {
  readonly host: string
  /** The port that is bound, also where 0 was asked for. */
  readonly port: number
  /** Stops accepting; connections that were accepted go on. */
  close(): Promise<void>
}

/** A change of the listeners that has been made possible, and waits. */
export interface DoorsChange {
  /** New ones serve, those that stay serve by their new options, and what is no longer asked for is closed. */
  commit(): void
  /** As it was before. */
  abort(): void
}

interface Door {
  options: ListenerOptions
  bound: Bound
  /** What came before the commit; null once it is served. */
  waiting: AcceptedSocket[] | null
}

const nameOf = ({ host, port }: ListenerOptions): string => `${host} port ${port}`

/** A load balancer's probes, or a fleet that waits for this port: more than this is told to come again. */
const MAX_WAITING = 1_024

/** The listening sockets of one process, and how another set takes the place of one without a gap. */
export class Doors {
  readonly #binder: Binder
  readonly #serve: (socket: AcceptedSocket, options: ListenerOptions) => void
  #doors = new Map<string, Door>()
  /** This process takes in nobody any more; its sessions still follow other settings. */
  #closed = false

  constructor(binder: Binder, serve: (socket: AcceptedSocket, options: ListenerOptions) => void) {
    this.#binder = binder
    this.#serve = serve
  }

  get bound(): readonly Bound[] {
    return Array.from(this.#doors.values(), ({ bound }) => bound)
  }

  /**
   * Binds what is not bound yet. A text says what could not be; then everything is as before.
   * @throws nothing: an address that is taken is an answer
   */
  async prepare(wanted: readonly ListenerOptions[]): Promise<DoorsChange | string> {
    if (this.#closed) return { commit() {}, abort() {} }
    const opened: [string, Door][] = []
    const next = new Map<string, Door>()
    for (const [index, options] of wanted.entries()) {
      // Each port 0 is another port.
      const name = options.port === 0 ? `${nameOf(options)} ${index}` : nameOf(options)
      const known = this.#doors.get(name)
      if (known !== undefined) {
        if (known.options.lift !== options.lift) {
          for (const [, door] of opened) shut(door)
          return `listeners[${index}].as: ${nameOf(options)}: to or from 8883 needs a restart, or another port`
        }
        next.set(name, known)
        continue
      }
      try {
        const door = await this.#open(options)
        opened.push([name, door])
        next.set(name, door)
      } catch (error) {
        for (const [, door] of opened) shut(door)
        return `listeners[${index}].bind: ${nameOf(options)}: ${error instanceof Error ? error.message : String(error)}`
      }
    }
    return {
      commit: () => {
        if (this.#closed) {
          for (const [, door] of opened) shut(door)
          return
        }
        const former = this.#doors
        this.#doors = next
        for (const [at, door] of [...next.values()].entries()) {
          door.options = wanted[at]!
          const waiting = door.waiting ?? []
          door.waiting = null
          for (const socket of waiting) this.#serve(socket, door.options)
        }
        for (const door of former.values()) if (![...next.values()].includes(door)) shut(door)
      },
      abort() {
        for (const [, door] of opened) shut(door)
      },
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    const doors = [...this.#doors.values()]
    await Promise.all(doors.map(({ bound }) => bound.close()))
  }

  async #open(options: ListenerOptions): Promise<Door> {
    const door: Omit<Door, 'bound'> = { options, waiting: [] }
    const bound = await this.#binder.listen(options, (socket) => {
      if (door.waiting === null) this.#serve(socket, door.options)
      else if (door.waiting.length >= MAX_WAITING) socket.destroy()
      else {
        // An error that nobody listens to would end the process.
        socket.on('error', () => {})
        door.waiting.push(socket)
      }
    })
    return Object.assign(door, { bound })
  }
}

function shut(door: Door): void {
  void door.bound.close()
  for (const socket of door.waiting ?? []) socket.destroy()
  door.waiting = null
}
