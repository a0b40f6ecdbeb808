// Whether the time of a refusal tells how much of a signature was right: whoever can measure that needs no key.
import type { HttpProof } from '../../src/auth/authenticator.ts'
import { connectionOf } from '../auth/conformance.ts'
import { upgrade, verifier } from '../support/sigv4.ts'
import { row } from './row.ts'

const COUNT = 20_000
/** Bytes of the MAC, two digits each. */
const BYTES = 32
const WARM = 2_000

const SIGNATURE = /X-Amz-Signature=([0-9a-f]{64})/

/** Welch's t of two samples without their slowest tenth: what else ran on the machine is not the question. */
function welch(one: readonly number[], other: readonly number[]): number {
  const [a, b] = [one, other].map((sample) => {
    const kept = sample.toSorted((x, y) => x - y).slice(0, Math.floor(sample.length * 0.9))
    const mean = kept.reduce((sum, value) => sum + value, 0) / kept.length
    const variance = kept.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (kept.length - 1)
    return { mean, error: variance / kept.length }
  })
  return (a!.mean - b!.mean) / Math.sqrt(a!.error + b!.error)
}

row(
  { number: 28, title: 'the time of a wrong signature', required: 'Welch t < 4.5 (informational)', seconds: 20 },
  async ({ t, random }) => {
    const authenticator = verifier()
    const signal = new AbortController().signal
    const right = upgrade()
    const mac = SIGNATURE.exec(right.target)![1]!
    /** The first so many bytes right, all others wrong. */
    const withRight = (bytes: number): HttpProof => {
      const wrong = [...mac.slice(2 * bytes)].map((digit) =>
        ((Number.parseInt(digit, 16) + 1 + random(15)) % 16).toString(16),
      )
      return { ...right, target: right.target.replace(mac, mac.slice(0, 2 * bytes) + wrong.join('')) }
    }
    const times: number[][] = Array.from({ length: BYTES }, () => [])
    const judge = async (bytes: number): Promise<number> => {
      const http = withRight(bytes)
      const from = performance.now()
      const { kind } = await authenticator.authenticate({ kind: 'sigv4', http }, connectionOf(), signal)
      const ms = performance.now() - from
      if (kind !== 'denied') throw new Error(`admitted with ${bytes} right bytes`)
      return ms
    }
    t.is(
      (await authenticator.authenticate({ kind: 'sigv4', http: right }, connectionOf(), signal)).kind,
      'authenticated',
    )
    for (let warm = 0; warm < WARM; warm++) await judge(random(BYTES))
    for (let count = 0; count < COUNT; count++) {
      const bytes = random(BYTES)
      times[bytes]!.push(await judge(bytes))
    }
    const few = times.slice(0, BYTES / 2).flat()
    const many = times.slice(BYTES / 2).flat()
    const [halves, ends] = [welch(few, many), welch(times.slice(0, 4).flat(), times.slice(-4).flat())]
    return {
      injected: `${COUNT} wrong MACs with 0 to ${BYTES - 1} right bytes in front, in random order, in process`,
      seen: `admitted: 0; Welch t ${halves.toFixed(2)} of fewer against more right bytes, ${ends.toFixed(2)} of 0–3 against 28–31`,
      gap: Math.max(Math.abs(halves), Math.abs(ends)) < 4.5 ? null : 't of 4.5 or more in this run',
    }
  },
)
