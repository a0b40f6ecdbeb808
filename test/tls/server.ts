import { type AddressInfo, createServer, type Socket } from 'node:net'
import { createCa, type Issued, issueServer } from '../../src/cli/pki.ts'
import type { PeerCertificate } from '../../src/connection.ts'
import { ProxyError } from '../../src/errors.ts'
import type { ByteStream } from '../../src/relay.ts'
import type { DomainOptions } from '../../src/tls/domain-options.ts'
import { type HandshakeOptions, handshake, type Secured } from '../../src/tls/handshake.ts'

/** One CA and one leaf of each kind for the whole file: key pairs are what takes the time. */
export const ca = createCa({ commonName: 'brokergate tests' })
export const ecdsa = issueServer(ca, { serverNames: ['a.example', 'b.example'] })
export const rsa = issueServer(ca, { serverNames: ['a.example', 'b.example'], keyType: 'rsa' })

export const pair = ({ certPem, keyPem }: Issued, name = 'server') => ({
  certPem,
  keyPem,
  certFile: `${name}.pem`,
  keyFile: `${name}.key`,
})

export function domainOptions(over: Partial<DomainOptions> = {}): DomainOptions {
  return {
    serverNames: ['a.example'],
    enabled: true,
    certificates: [pair(ecdsa)],
    tlsPolicy: 'IoTSecurityPolicy_TLS13_1_2_2022_10',
    authenticationType: 'DEFAULT',
    applicationProtocol: 'DEFAULT',
    endpointType: 'data',
    trustMode: 'registry',
    caPems: [],
    handshakeTimeoutMs: 10_000,
    backend: 'main',
    registry: 'main',
    sessionTickets: null,
    judgesChains: (over.trustMode ?? 'registry') !== 'registry',
    ...over,
  }
}

/** As the product does unless told otherwise, on a runtime that has the second transport. */
const LIFT = process.env.TRANSPORT !== 'portable'

/** What both transports have. */
export interface SecuredStream extends ByteStream {
  isSessionReused(): boolean
}

export interface Listening {
  readonly port: number
  /** How each connection's handshake ended, in order. */
  readonly ended: (Secured | ProxyError)[]
  /** The next ending that nobody has taken yet. */
  next(): Promise<Secured | ProxyError>
  close(): Promise<void>
}

/** A port that looks at the first bytes, gives them back and does the handshake, as the proxy does. */
export async function listen(
  options: Partial<HandshakeOptions> & Pick<HandshakeOptions, 'context'>,
  onSecured: (tls: SecuredStream) => void = (tls) => {
    tls.write(Buffer.from('UP\n'))
    tls.on('data', () => {})
    tls.on('end', () => tls.end())
  },
): Promise<Listening> {
  const sockets = new Set<Socket>()
  const streams = new Set<ByteStream>()
  const ended: (Secured | ProxyError)[] = []
  const waiting: ((end: Secured | ProxyError) => void)[] = []
  let taken = 0
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: false }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    socket.once('data', (chunk) => {
      socket.pause()
      socket.unshift(chunk)
      handshake(socket, { requestCert: false, alpn: null, deadlineMs: 5_000, lift: LIFT, ...options })
        .then((secured) => {
          streams.add(secured.tls)
          secured.tls.on('close', () => streams.delete(secured.tls))
          // The chain is asked for while the connection is there, as the identity stage does.
          const peer = secured.peer === null ? null : asItIs(secured.peer)
          onSecured(secured.tls)
          return { ...secured, peer }
        })
        .catch((error: unknown) => {
          if (error instanceof ProxyError) return error
          throw error
        })
        .then((end) => {
          ended.push(end)
          for (const wake of waiting.splice(0)) wake(end)
        })
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    ended,
    async next() {
      const index = taken
      taken += 1
      while (ended.length <= index) await new Promise<unknown>((resolve) => waiting.push(resolve))
      return ended[index]!
    },
    close() {
      return new Promise((resolve) => {
        server.close(() => resolve())
        for (const stream of [...streams, ...sockets]) stream.destroy()
      })
    },
  }
}

/** Its chain is asked for while the connection lives. */
function asItIs({ leaf, chain, verifyError, resumed }: PeerCertificate): PeerCertificate {
  return { leaf, chain, verifyError, ...(resumed !== undefined && { resumed }) }
}
