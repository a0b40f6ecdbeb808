import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { generate, type IConnackPacket, type Packet, parser as parserOf } from 'mqtt-packet'
import { freePort, type Teardowns } from './proxy.ts'

/**
 * How a broker fails:
 *
 * - `serve`: it does not; CONNACK, PUBACK, SUBACK, PINGRESP.
 * - `refuse`: nobody listens. `reset`: accepts and resets. `hangup`: accepts and ends in good order.
 * - `blackhole`: SYN is never answered. `silent`: accepts and says nothing.
 * - `drip`: CONNACK byte by byte, one a second. `slow`: CONNACK after a second.
 * - `garbage`: answers with what is not MQTT. `busy`: CONNACK that refuses, «server unavailable».
 */
export const FAULTS = ['refuse', 'reset', 'hangup', 'blackhole', 'silent', 'drip', 'garbage', 'busy'] as const
export type BrokerMode = (typeof FAULTS)[number] | 'serve' | 'slow'

export interface FaultyBroker {
  /** The same for as long as it lives. */
  readonly port: number
  readonly live: ReadonlySet<Socket>
  /** CONNECTs that came, in all modes. */
  connects: number
  /** From now on. Connections that are open stay, unless `cut`. */
  become(mode: BrokerMode): Promise<void>
  /** Ends all connections as a process that is killed does; `reset` as one whose machine forgot them. */
  cut(how?: 'end' | 'reset'): void
}

/**
 * Connections that fill the accept queue of a process that does not accept: Linux lets one more than the backlog in, then
 * drops every SYN. Bun 1.4.5 ignores `backlog` and asks for 512.
 */
const QUEUE = 'bun' in process.versions ? 513 : 2

/** One broker on one port that fails in whatever way is asked for; gone after the test. */
export async function faultyBroker(t: Teardowns, mode: BrokerMode = 'serve'): Promise<FaultyBroker> {
  const port = await freePort()
  const live = new Set<Socket>()
  const timers = new Set<NodeJS.Timeout>()
  let now: BrokerMode = mode
  let server: Server | null = null
  let hole: (() => Promise<void>) | null = null

  const later = (ms: number, call: () => void) => {
    const timer = setTimeout(() => {
      timers.delete(timer)
      call()
    }, ms)
    timers.add(timer)
  }
  const listen = async () => {
    if (server !== null) return
    server = createServer({ noDelay: true }, (socket) => accept(socket))
    server.listen({ port, host: '127.0.0.1', backlog: 4_096 })
    await once(server, 'listening')
  }
  const deafen = async () => {
    const before = server
    server = null
    // Its callback waits for the last connection; the listening socket is closed at once.
    before?.close()
  }
  const accept = (socket: Socket) => {
    live.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => live.delete(socket))
    if (now === 'reset') return socket.resetAndDestroy()
    if (now === 'hangup') return socket.end()
    const parser = parserOf()
    let protocolVersion = 4
    const say = (packet: Packet) => socket.write(generate(packet, { protocolVersion }))
    parser.on('error', () => socket.destroy())
    parser.on('packet', (packet) => {
      if (packet.cmd === 'connect') {
        protocolVersion = packet.protocolVersion ?? 4
        broker.connects++
        answerConnect(socket, protocolVersion)
      } else if (packet.cmd === 'publish' && packet.qos === 1) {
        say({ cmd: 'puback', messageId: packet.messageId ?? 0 })
      } else if (packet.cmd === 'subscribe') {
        const granted = packet.subscriptions.map(({ qos }) => qos)
        say({ cmd: 'suback', messageId: packet.messageId ?? 0, granted, reasonCodes: granted } as Packet)
      } else if (packet.cmd === 'pingreq') say({ cmd: 'pingresp' })
      else if (packet.cmd === 'disconnect') socket.end()
    })
    socket.on('data', (chunk: Buffer) => parser.parse(chunk))
  }
  const answerConnect = (socket: Socket, protocolVersion: number) => {
    const code = now === 'busy' ? (protocolVersion === 5 ? 0x88 : 3) : 0
    const answer = { cmd: 'connack', sessionPresent: false, returnCode: code, reasonCode: code } as IConnackPacket
    const bytes = generate(answer, { protocolVersion })
    if (now === 'silent') return
    if (now === 'garbage') socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')
    else if (now === 'slow') later(1_000, () => socket.write(bytes))
    else if (now === 'drip') {
      // Of CONNACK all but the last byte, over and over a second apart: never silent, never done.
      const drop = (at: number) => {
        if (socket.destroyed || at >= bytes.length - 1) return
        socket.write(bytes.subarray(at, at + 1))
        later(1_000, () => drop(at + 1))
      }
      drop(0)
    } else socket.write(bytes)
  }

  const broker: FaultyBroker = {
    port,
    live,
    connects: 0,
    async become(mode) {
      now = mode
      await hole?.()
      hole = null
      if (mode === 'refuse') await deafen()
      else if (mode === 'blackhole') {
        await deafen()
        hole = await digHole(port)
      } else await listen()
    },
    cut(how = 'end') {
      for (const socket of live) {
        if (how === 'reset') socket.resetAndDestroy()
        else socket.destroy()
      }
    },
  }
  t.teardown(async () => {
    for (const timer of timers) clearTimeout(timer)
    await hole?.()
    await deafen()
    broker.cut()
  })
  await broker.become(mode)
  return broker
}

/** A listener that never accepts, its queue full: the kernel drops what comes. Returns what fills it in again. */
async function digHole(port: number): Promise<() => Promise<void>> {
  const script = `require('net').createServer().listen({host:'127.0.0.1',port:${port},backlog:1},()=>console.log('up'))`
  const child: ChildProcess = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  await Promise.race([
    once(child.stdout!, 'data'),
    exited.then(() => Promise.reject(new Error(`nobody could listen on ${port}`))),
  ])
  child.kill('SIGSTOP')
  const sockets = Array.from({ length: QUEUE }, () => {
    const socket = connect({ host: '127.0.0.1', port })
    socket.on('error', () => {})
    return socket
  })
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  return async () => {
    for (const socket of sockets) socket.destroy()
    child.kill('SIGKILL')
    await exited
  }
}
