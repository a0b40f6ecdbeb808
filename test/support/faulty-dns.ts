import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import type { Teardowns } from './proxy.ts'
import { write } from './proxy.ts'

/** `answer` gives the address; the others are how a resolver fails. */
export type DnsMode = 'answer' | 'nxdomain' | 'servfail' | 'silent'

export interface FaultyDns {
  /** What the program is started with, so that it asks this server and nobody else's answers are changed. */
  readonly prefix: string[]
  /** Questions that came. */
  asked: number
  /** From now on. */
  mode: DnsMode
  address: string
}

const RCODES: Readonly<Record<Exclude<DnsMode, 'silent'>, number>> = { answer: 0, nxdomain: 3, servfail: 2 }
const TYPE_A = 1

/** A name server on a loopback address of its own, port 53, for one process in a mount namespace of its own. */
export async function faultyDns(t: Teardowns, dir: string): Promise<FaultyDns> {
  const octet = () => 1 + Math.floor(Math.random() * 250)
  const own = `127.${octet()}.${octet()}.${octet()}`
  const socket = createSocket('udp4')
  const dns: FaultyDns = { prefix: [], asked: 0, mode: 'answer', address: '127.0.0.1' }
  socket.on('message', (question, from) => {
    dns.asked++
    if (dns.mode === 'silent') return
    socket.send(answerTo(question, dns), from.port, from.address)
  })
  socket.bind(53, own)
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  const conf = write(dir, 'resolv.conf', `nameserver ${own}\noptions timeout:1 attempts:1\n`)
  const script = `mount --bind ${conf} /etc/resolv.conf && exec "$@"`
  dns.prefix.push('unshare', '-m', 'bash', '-c', script, '--')
  return dns
}

/** RFC 1035 §4.1: the question again, and one A record where there is an answer. */
function answerTo(question: Buffer, { mode, address }: FaultyDns): Buffer {
  let end = 12
  while (question[end] !== 0) end += question[end]! + 1
  const type = question.readUInt16BE(end + 1)
  const asked = question.subarray(12, end + 5)
  const found = mode === 'answer' && type === TYPE_A
  const head = Buffer.alloc(12)
  question.copy(head, 0, 0, 2)
  head.writeUInt16BE(0x8180 | RCODES[mode as Exclude<DnsMode, 'silent'>], 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(found ? 1 : 0, 6)
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, ...address.split('.').map(Number)])
  return Buffer.concat(found ? [head, asked, record] : [head, asked])
}
