/** Whether these bytes still bring the same finding. */
export type Fails = (input: Buffer) => boolean | Promise<boolean>

const MOST_TRIES = 4_000

/**
 * The smallest input that still fails, as far as taking out pieces goes (ddmin: halves first, then ever smaller ones), and
 * the plainest: what may as well be `0`, is.
 */
export async function shrink(input: Buffer, fails: Fails): Promise<Buffer> {
  let best = input
  let tries = 0
  const take = async (candidate: Buffer): Promise<boolean> => {
    if (tries++ >= MOST_TRIES || !(await fails(candidate))) return false
    best = candidate
    return true
  }
  for (let size = Math.max(1, best.length >> 1); ; size = Math.max(1, size >> 1)) {
    let found = false
    for (let at = 0; at < best.length && tries < MOST_TRIES; ) {
      // What follows has moved here.
      if (await take(Buffer.concat([best.subarray(0, at), best.subarray(at + size)]))) found = true
      else at += size
    }
    if (size === 1 && !found) break
    if (tries >= MOST_TRIES) break
  }
  for (let at = 0; at < best.length; at++) {
    if (best[at] === 0x30) continue
    const plain = Buffer.from(best)
    plain[at] = 0x30
    await take(plain)
  }
  return best
}
