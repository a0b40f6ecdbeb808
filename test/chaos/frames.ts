/** What of a server's WebSocket frames a device needs to know. */
export type Frame =
  | { readonly kind: 'binary'; readonly payload: Buffer }
  | { readonly kind: 'close'; readonly code: number }
  | { readonly kind: 'other' }

const BINARY = 2
const CLOSE = 8

/** Takes unmasked frames apart as they come; a message in several frames gives a piece for each. RFC 6455 §5.2. */
export function frames(): (chunk: Buffer) => Frame[] {
  let kept: Buffer = Buffer.alloc(0)
  return (chunk) => {
    kept = kept.length === 0 ? chunk : Buffer.concat([kept, chunk])
    const found: Frame[] = []
    for (;;) {
      if (kept.length < 2) return found
      const short = kept[1]! & 0x7f
      const headBytes = short === 126 ? 4 : short === 127 ? 10 : 2
      if (kept.length < headBytes) return found
      const length = short === 126 ? kept.readUInt16BE(2) : short === 127 ? Number(kept.readBigUInt64BE(2)) : short
      if (kept.length < headBytes + length) return found
      const payload = kept.subarray(headBytes, headBytes + length)
      const opcode = kept[0]! & 0x0f
      kept = kept.subarray(headBytes + length)
      if (opcode <= BINARY) found.push({ kind: 'binary', payload })
      else if (opcode === CLOSE) found.push({ kind: 'close', code: length >= 2 ? payload.readUInt16BE(0) : 1005 })
      else found.push({ kind: 'other' })
    }
  }
}
