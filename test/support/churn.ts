/** What the runtime tells of its heap, where it does. */
interface Heap {
  edenGC(): void
  fullGC(): void
  heapStats(): { readonly objectCount: number }
}

const ROUNDS = 5
const THINGS = 3_000
/** Objects that a thing has. */
const PARTS = 8

/**
 * Things come and go, and young garbage is collected now and then: which share of them is still there at the end.
 * 0 where the runtime cannot be asked.
 */
export async function grownByChurn(come: (thing: object) => void): Promise<number> {
  if (process.versions.bun === undefined) return 0
  const heap = (await import('bun:jsc' as string)) as Heap
  const some = () => {
    for (let at = 0; at < THINGS; at++) come({ parts: Array.from({ length: PARTS }, (_, part) => ({ part })) })
    heap.edenGC()
    return heap.heapStats().objectCount
  }
  heap.fullGC()
  const before = some()
  let after = before
  for (let round = 0; round < ROUNDS; round++) after = some()
  return (after - before) / (ROUNDS * THINGS * PARTS)
}
