import { Duplex } from 'node:stream'
import type { ByteStream } from '../relay.ts'

/** A ByteStream as the Duplex that libraries ask for; one that is a Duplex already is passed on. */
export function duplexOf(stream: ByteStream): Duplex {
  if (stream instanceof Duplex) return stream
  let drained: (() => void) | null = null
  let closed = false
  const duplex = new Duplex({
    allowHalfOpen: true,
    read() {
      stream.resume()
    },
    write(chunk: Uint8Array, _encoding, done) {
      if (closed) done(new Error('the stream is closed'))
      else if (stream.write(chunk)) done()
      else drained = done
    },
    final(done) {
      stream.end()
      done()
    },
    destroy(error, done) {
      stream.destroy()
      done(error)
    },
  })
  stream.on('data', (chunk) => {
    if (!duplex.push(chunk)) stream.pause()
  })
  stream.on('drain', () => {
    const done = drained
    drained = null
    done?.()
  })
  stream.on('end', () => duplex.push(null))
  stream.on('close', () => {
    closed = true
    drained = null
    duplex.destroy()
  })
  return duplex
}
