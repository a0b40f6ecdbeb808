import { type ChildProcess, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import type { Teardowns } from '../support/proxy.ts'

/** Answers nothing, resets at once, or waits before it lets anybody talk. */
export interface BadBroker {
  readonly port: number
  /** How many have knocked: a fault that nobody met was none. */
  readonly knocks: number
}

/** Accepts, and does as told with the socket. */
export async function acceptAnd(t: Teardowns, treat: (socket: Socket) => void): Promise<BadBroker> {
  const sockets = new Set<Socket>()
  let knocks = 0
  const server = createServer((socket) => {
    knocks++
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    treat(socket)
  })
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1_024 })
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return {
    port: (server.address() as AddressInfo).port,
    get knocks() {
      return knocks
    },
  }
}

const LISTENER = `const s = require('node:net').createServer(() => {});
s.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(s.address().port))`

/**
 * A port on which SYNs vanish: a stopped process listens, its queue is full, and the kernel drops what comes next. No
 * rights are needed. Proved before it is handed over: the last connect was not answered.
 */
export async function blackHole(t: Teardowns): Promise<{ readonly port: number }> {
  const child: ChildProcess = spawn(process.execPath, ['-e', LISTENER], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const [line] = (await once(createInterface({ input: child.stdout! }), 'line')) as [string]
  const port = Number(line)
  child.kill('SIGSTOP')
  const held: Socket[] = []
  t.teardown(() => {
    for (const socket of held) socket.destroy()
  })
  for (let tries = 0; tries < 2_000; tries++) {
    const socket = connect({ port, host: '127.0.0.1' })
    held.push(socket)
    socket.on('error', () => {})
    const answered = await Promise.race([
      once(socket, 'connect').then(() => true),
      new Promise<false>((resolve) => setTimeout(() => resolve(false), 500)),
    ])
    if (!answered) return { port }
  }
  throw new Error('the queue of the stopped process takes everybody')
}

/** What a resolver says of a name: SERVFAIL (2) or NXDOMAIN (3) of RFC 1035 §4.1.1, an IPv4 address, or nothing. */
export type DnsAnswer = 'servfail' | 'nxdomain' | 'silence' | { readonly ipv4: string }

export interface FakeDns {
  readonly address: string
  /** How often it was asked for a name. */
  asked(name: string): number
}

/** On port 53 of an address of 127.0.0.0/8 of its own, because resolv.conf names no ports; needs the right to bind it. */
export async function fakeDns(t: Teardowns, answerFor: (name: string) => DnsAnswer): Promise<FakeDns> {
  const address = `127.${20 + Math.floor(Math.random() * 200)}.${Math.floor(Math.random() * 256)}.53`
  const socket = createSocket('udp4')
  const asked = new Map<string, number>()
  socket.on('message', (question, from) => {
    const { name, end } = nameOf(question)
    asked.set(name, (asked.get(name) ?? 0) + 1)
    const answer = answerFor(name)
    if (answer !== 'silence') socket.send(answerTo(question.subarray(0, end), answer), from.port, from.address)
  })
  socket.bind({ address, port: 53 })
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  return { address, asked: (name) => asked.get(name) ?? 0 }
}

/** Labels behind the header of twelve bytes; `end` is behind the type and class that follow them. */
function nameOf(question: Buffer): { readonly name: string; readonly end: number } {
  const labels: string[] = []
  let at = 12
  for (let length = question[at]!; length > 0; length = question[at]!) {
    labels.push(question.toString('latin1', at + 1, at + 1 + length))
    at += 1 + length
  }
  return { name: labels.join('.').toLowerCase(), end: at + 5 }
}

function answerTo(question: Buffer, answer: Exclude<DnsAnswer, 'silence'>): Buffer {
  const isA = question.readUInt16BE(question.length - 4) === 1
  const code = answer === 'servfail' ? 2 : answer === 'nxdomain' ? 3 : 0
  const head = Buffer.from(question)
  head.writeUInt16BE(0x8180 | code, 2)
  // A pointer to the name in the question, type A, class IN, a second to live, four bytes.
  const record =
    typeof answer === 'object' && isA
      ? Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...answer.ipv4.split('.').map(Number)])
      : Buffer.alloc(0)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(record.length === 0 ? 0 : 1, 6)
  head.writeUInt32BE(0, 8)
  return Buffer.concat([head, record])
}
