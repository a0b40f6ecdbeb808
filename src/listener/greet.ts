import type { AcceptedSocket } from '../connection.ts'
import { ProxyError } from '../errors.ts'
import { type Ears, listen, type StreamListener, unlisten } from '../relay.ts'
import { type ClientHello, type HelloParse, HelloReader } from './client-hello.ts'
import type { ListenerOptions } from './listener.ts'
import { looksLikeProxyHeader, parseProxyHeader } from './proxy-protocol.ts'

export type Greeting =
  | {
      readonly kind: 'hello'
      readonly hello: ClientHello
      /** Of its TLS records. */
      readonly bytes: number
      /** What a trusted PROXY header said; null where none was sent, or it named nobody. */
      readonly source: { readonly address: string; readonly port: number } | null
    }
  /** Connected and left without a word, as health checks of load balancers do. */
  | { readonly kind: 'probe' }

/**
 * Reads what comes before TLS: the PROXY header where one is due, and the ClientHello, looked at and given back, so
 * that the handshake sees it as if nobody had looked.
 *
 * @param address null: a health check may have reset the connection before it was accepted, and its bytes are here, its
 * address is not. Who has no address can be told nothing and claims nothing, so it is not judged as a source either
 * @param waitedMs since it was accepted
 * @param met told once; of errors ERR_PROXY_HEADER, ERR_NOT_TLS, ERR_HELLO_*
 */
export function greet(
  socket: AcceptedSocket,
  address: string | null,
  options: ListenerOptions,
  waitedMs: number,
  met: (result: Greeting | ProxyError) => void,
): void {
  new Greeter(socket, address, options, waitedMs, met).begin()
}

const late = (greeter: Greeter): void => greeter.late()

/** One for each connection, so nothing but what has to be remembered between two chunks. */
class Greeter implements StreamListener {
  readonly #socket: AcceptedSocket
  readonly #options: ListenerOptions
  readonly #met: (result: Greeting | ProxyError) => void
  readonly #reader = new HelloReader()
  readonly #timer: NodeJS.Timeout
  /** It has no address. */
  readonly #nobody: boolean
  #ears: Ears | null = null
  #source: { readonly address: string; readonly port: number } | null = null
  /** Bytes of a PROXY header that is not whole yet; null once it is done with. */
  #header: Buffer | null = null
  #first = true
  #seen = 0
  #done = false

  constructor(
    socket: AcceptedSocket,
    address: string | null,
    options: ListenerOptions,
    waitedMs: number,
    met: (result: Greeting | ProxyError) => void,
  ) {
    this.#socket = socket
    this.#options = options
    this.#met = met
    const { proxyProtocol, helloTimeoutMs } = options
    this.#nobody = address === null
    if (address !== null && proxyProtocol?.trusts(address) === true) this.#header = NOTHING
    this.#timer = setTimeout(late, Math.max(0, helloTimeoutMs - waitedMs), this)
  }

  begin(): void {
    const socket = this.#socket
    socket.on('error', ignore)
    this.#ears = listen(socket, this)
    // It may have gone while it waited for its turn.
    if (socket.destroyed === true || socket.readableEnded === true) this.onEnd()
  }

  onData(chunk: Buffer): void {
    if (this.#nobody) return
    const result = this.#look(chunk)
    if (result === null) return
    if (result instanceof ProxyError) {
      this.#fail(result)
      return
    }
    this.#over()
    // TLSSocket reads what is buffered on the socket it wraps.
    this.#socket.unshift(this.#reader.taken())
    this.#met({ kind: 'hello', hello: result.hello, bytes: result.bytes, source: this.#source })
  }

  /** Null: there is more to come. */
  #look(chunk: Buffer): Extract<HelloParse, { kind: 'hello' }> | ProxyError | null {
    this.#seen += chunk.length
    let rest = chunk
    if (this.#header !== null) {
      this.#header = this.#header.length === 0 ? chunk : Buffer.concat([this.#header, chunk])
      const parse = parseProxyHeader(this.#header, this.#options.proxyProtocol!.versions)
      if (parse.kind === 'incomplete') return null
      if (parse.kind === 'invalid') return new ProxyError('ERR_PROXY_HEADER', parse.detail)
      this.#source = parse.source
      rest = this.#header.subarray(parse.bytes)
      this.#header = null
      this.#seen = rest.length
      if (rest.length === 0) return null
    }
    if (this.#first && looksLikeProxyHeader(rest)) {
      const from = this.#socket.remoteAddress
      return new ProxyError('ERR_PROXY_HEADER', `a PROXY header from ${from}, which is not a trusted source here`)
    }
    this.#first = false
    const parse = this.#reader.push(rest)
    switch (parse.kind) {
      case 'incomplete':
        return null
      case 'hello':
        return parse
      case 'not-tls':
        // Enough to tell HTTP, MQTT and SSH apart; what follows may be a password.
        return new ProxyError('ERR_NOT_TLS', `first bytes ${rest.subarray(0, 3).toString('hex')}`)
      case 'oversized':
        return new ProxyError('ERR_HELLO_OVERSIZED', 'ClientHello over 64 KiB')
      case 'malformed':
        return new ProxyError('ERR_HELLO_MALFORMED', parse.detail)
    }
  }

  onDrain(): void {}

  onEnd(): void {
    if (this.#done) return
    // Behind a load balancer a probe may send its header and leave; in front of none, not a single byte.
    if (this.#seen === 0) {
      this.#over()
      this.#met({ kind: 'probe' })
      return
    }
    this.#fail(
      this.#header === null
        ? new ProxyError('ERR_HELLO_INCOMPLETE', `closed after ${this.#seen} bytes`)
        : new ProxyError('ERR_PROXY_HEADER', `closed after ${this.#seen} bytes of the header`),
    )
  }

  onClose(): void {
    this.onEnd()
  }

  late(): void {
    this.#fail(new ProxyError('ERR_HELLO_TIMEOUT', `${this.#seen} bytes in ${this.#options.helloTimeoutMs} ms`))
  }

  #fail(error: ProxyError): void {
    this.#over()
    this.#met(error)
  }

  #over(): void {
    this.#done = true
    clearTimeout(this.#timer)
    unlisten(this.#socket, this.#ears)
  }
}

const NOTHING = Buffer.alloc(0)
const ignore = (): void => {}
