import { connect, type Socket } from 'node:net'

/** Runs `each` for all items, so many at a time. */
export async function crowd<T>(
  items: readonly T[],
  atATime: number,
  each: (item: T, at: number) => Promise<void>,
): Promise<void> {
  let next = 0
  const worker = async () => {
    for (let at = next++; at < items.length; at = next++) await each(items[at]!, at)
  }
  await Promise.all(Array.from({ length: Math.min(atATime, items.length) }, worker))
}

/** Loopback addresses of many, so that what is fair to one address is no limit to a crowd. */
export const addressOf = (at: number): string => `127.${10 + (at % 40)}.${1 + ((at >> 6) % 200)}.${1 + (at % 200)}`

/** How the other side answered what it was sent, and when it closed. */
export interface Reply {
  readonly bytes: Buffer
  /** From the start of the connection to its end, in milliseconds. */
  readonly ms: number
}

/** Says these bytes, and with `fin` ends its side; resolves when the other side has closed, rejects after `deadlineMs`. */
export function say(
  port: number,
  bytes: Uint8Array,
  options: { readonly fin: boolean | 'once answered'; readonly localAddress?: string; readonly deadlineMs: number },
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const started = performance.now()
    const { localAddress } = options
    const socket: Socket = connect({
      host: '127.0.0.1',
      port,
      allowHalfOpen: true,
      ...(localAddress !== undefined && { localAddress }),
    })
    const chunks: Buffer[] = []
    const timer = setTimeout(() => {
      socket.destroy()
      reject(
        new Error(`not closed within ${options.deadlineMs} ms: ${Buffer.from(bytes).toString('hex').slice(0, 80)}`),
      )
    }, options.deadlineMs)
    const done = () => {
      clearTimeout(timer)
      socket.destroy()
      resolve({ bytes: Buffer.concat(chunks), ms: performance.now() - started })
    }
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      if (options.fin === 'once answered') socket.end()
    })
    // A reset is an end as well.
    socket.on('error', () => {})
    socket.once('end', done)
    socket.once('close', done)
    socket.once('connect', () => {
      if (options.fin === true) socket.end(bytes)
      else socket.write(bytes)
    })
  })
}
