import { STATUS_CODES } from 'node:http'
import type { Writable } from 'node:stream'
import type { Answer } from './answer.ts'

/** An answer where no `ServerResponse` is: after a parser's error, and to an upgrade. Always the last one. */
export function writeAnswer(socket: Writable, { status, headers, body }: Answer): void {
  if (socket.destroyed || !socket.writable) return
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${lines.join('')}` +
      `date: ${new Date().toUTCString()}\r\nconnection: close\r\n\r\n${body}`,
  )
}
