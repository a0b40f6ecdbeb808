import { randomBytes } from 'node:crypto'

// What session tickets are sealed with, in all processes of one instance. It exists in memory and in messages between
// the primary and its workers, and nowhere else: no log, no status, no file. A restart makes another.

/** As much as the key that HKDF-SHA-256 makes of it is worth. */
const SECRET_BYTES = 32

type ToPrimary = { readonly tickets: 'ask' }
type ToWorker = { readonly tickets: 'secret'; readonly secret: string }

export interface TicketSecret {
  /** The one in force. Two epochs of a process never have the same. */
  current(): { readonly epoch: number; readonly secret: Uint8Array }
}

export interface RotatingOptions {
  /** It is replaced by one of our own when it has become this old. */
  readonly maxAgeMs: number
  /** Told of each replacement, not of the first one. */
  readonly rotated?: () => void
  /** Monotonic milliseconds. */
  readonly now?: () => number
  readonly random?: (bytes: number) => Buffer
}

/** A secret that never grows older than it may: it looks at the clock whenever it is asked for. */
export class RotatingSecret implements TicketSecret {
  readonly #options: RotatingOptions
  #secret: Buffer
  #since: number
  #epoch = 1

  constructor(options: RotatingOptions) {
    this.#options = options
    this.#secret = this.#random()
    this.#since = this.#now()
  }

  current(): { readonly epoch: number; readonly secret: Uint8Array } {
    if (this.#now() - this.#since >= this.#options.maxAgeMs) this.replace(this.#random())
    return { epoch: this.#epoch, secret: this.#secret }
  }

  /** The former one is gone: what it sealed is opened by nobody any more. */
  replace(secret: Buffer): void {
    if (secret.equals(this.#secret)) return
    this.#secret.fill(0)
    this.#secret = Buffer.from(secret)
    this.#since = this.#now()
    this.#epoch += 1
    this.#options.rotated?.()
  }

  #now(): number {
    return (this.#options.now ?? (() => performance.now()))()
  }

  #random(): Buffer {
    return (this.#options.random ?? randomBytes)(SECRET_BYTES)
  }
}

export interface SecretServer {
  /** A new secret for every worker. */
  rotate(): void
  /** To be called with every message of a worker; false when it is not for this. */
  heard(message: unknown, workerId: number): boolean
}

export interface SecretServerOptions {
  readonly tell: (workerId: number, message: unknown) => void
  readonly broadcast: (message: unknown) => void
  readonly random?: (bytes: number) => Buffer
}

/** The primary's end. It seals nothing itself. */
export function secretServer({ tell, broadcast, random = randomBytes }: SecretServerOptions): SecretServer {
  let secret = random(SECRET_BYTES)
  const message = (): ToWorker => ({ tickets: 'secret', secret: secret.toString('base64') })
  return {
    rotate() {
      secret.fill(0)
      secret = random(SECRET_BYTES)
      broadcast(message())
    },
    heard(data, workerId) {
      if ((data as ToPrimary | null)?.tickets !== 'ask') return false
      tell(workerId, message())
      return true
    },
  }
}

/** Periods that a worker goes on with the secret it was last told: a primary that says nothing must not make it last. */
const PERIODS_WITHOUT_NEWS = 2

export interface LinkedSecret extends TicketSecret {
  /** To be called with every message of the primary; false when it is not for this. */
  heard(message: unknown): boolean
}

/** The worker's end: a secret of its own until the primary answers, which costs full handshakes and nothing else. */
export function linkedSecret(send: (message: unknown) => void, { maxAgeMs, ...rest }: RotatingOptions): LinkedSecret {
  const own = new RotatingSecret({ maxAgeMs: maxAgeMs * PERIODS_WITHOUT_NEWS, ...rest })
  const ask: ToPrimary = { tickets: 'ask' }
  send(ask)
  return {
    current: () => own.current(),
    heard(data) {
      const told = data as ToWorker | null
      if (told?.tickets !== 'secret') return false
      const secret = Buffer.from(String(told.secret), 'base64')
      if (secret.length === SECRET_BYTES) own.replace(secret)
      return true
    },
  }
}
