import type { Metrics } from '../control/metrics.ts'
import { ProxyError } from '../errors.ts'
import { Circuit } from './circuit.ts'

/** What kept an answer away, as the `result` of `authorizer_calls_total`. */
export type FaultKind = 'timeout' | 'network' | 'status' | 'unusable' | 'busy' | 'circuit_open'

/** No usable answer: never a yes, never a no. */
export class CallFault extends Error {
  override readonly name = 'CallFault'
  readonly kind: FaultKind
  /**
   * True where it says that the other side is unwell. What is wrong with one answer alone must not count: a device
   * whose record is broken would shut the others out by coming back.
   */
  readonly unwell: boolean

  constructor(kind: FaultKind, message: string, options: ErrorOptions & { readonly unwell?: boolean } = {}) {
    super(message, options)
    this.kind = kind
    this.unwell = options.unwell ?? true
  }
}

export interface GuardOptions {
  /** Of the authorizer: the metric label. */
  readonly name: string
  /** For one whole call, waiting included. */
  readonly timeoutMs: number
  /** Most calls at once; `QUEUE` times as many wait. */
  readonly concurrency: number
  readonly metrics: Pick<Metrics, 'authorizerCall' | 'authorizerCircuit'>
  readonly now?: () => number
  readonly random?: () => number
}

export interface Guard {
  /**
   * @param call given a signal that ends it at the deadline or when the device leaves; it is not waited for after that
   * @param resultOf how an answer is counted
   * @throws {ProxyError} ERR_AUTHORIZER_UNAVAILABLE for every fault, with the fault as `cause`
   */
  run<T>(
    call: (signal: AbortSignal) => Promise<T>,
    signal: AbortSignal,
    resultOf?: (answer: T) => 'ok' | 'allowed' | 'denied',
  ): Promise<T>
}

/** How many may wait for each one that is asked. A question that waits holds no more than its session does. */
const QUEUE = 16

/** A deadline, a ceiling, a queue and a circuit breaker around calls to one place, all of them counted. */
export function guard(options: GuardOptions): Guard {
  const { name, timeoutMs, concurrency, metrics } = options
  const now = options.now ?? (() => performance.now())
  const circuit = new Circuit({
    now,
    random: options.random ?? Math.random,
    changed: (open) => metrics.authorizerCircuit(name, open),
  })
  let running = 0
  const waiting: (() => void)[] = []

  /** Resolves when it is this one's turn; whoever ends before that leaves the queue. */
  const turn = (signal: AbortSignal): Promise<void> => {
    if (running < concurrency) {
      running += 1
      return Promise.resolve()
    }
    return new Promise((resolve, reject) => {
      const go = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      const leave = () => {
        waiting.splice(waiting.indexOf(go), 1)
        reject(signal.reason)
      }
      waiting.push(go)
      signal.addEventListener('abort', leave, { once: true })
    })
  }
  // The place goes to the next one directly, so that a newcomer cannot slip in between.
  const done = () => {
    const next = waiting.shift()
    if (next === undefined) running -= 1
    else next()
  }

  return {
    async run(call, signal, resultOf = () => 'ok') {
      const startedAt = now()
      const count = (result: string) => metrics.authorizerCall(name, result, (now() - startedAt) / 1_000)
      if (signal.aborted) throw left(signal)
      if (running >= concurrency && waiting.length >= concurrency * QUEUE) {
        count('busy')
        throw unavailable(name, new CallFault('busy', 'too many questions wait already'))
      }
      if (!circuit.admit()) {
        count('circuit_open')
        throw unavailable(name, new CallFault('circuit_open', 'it failed too often; not asked for a while'))
      }
      const ending = new AbortController()
      const timer = setTimeout(() => ending.abort(new CallFault('timeout', `no answer in ${timeoutMs} ms`)), timeoutMs)
      const onLeave = () => ending.abort(left(signal))
      signal.addEventListener('abort', onLeave, { once: true })
      let askedAt: number | null = null
      try {
        await turn(ending.signal)
        askedAt = now()
        const answer = await ends(call, ending.signal).finally(done)
        circuit.answered()
        count(resultOf(answer))
        return answer
      } catch (error) {
        if (signal.aborted) {
          circuit.canceled()
          count('canceled')
          throw left(signal)
        }
        const fault = error instanceof CallFault ? error : new CallFault('network', messageOf(error), { cause: error })
        // Where most of the time went by in the queue, the deadline tells nothing of the other side: many that come at
        // once must not shut all others out.
        const isOurs = fault.kind === 'timeout' && (askedAt === null || now() - askedAt < timeoutMs / 2)
        if (isOurs) circuit.canceled()
        else if (fault.unwell) circuit.failed()
        else circuit.answered()
        count(fault.kind)
        throw unavailable(name, fault)
      } finally {
        clearTimeout(timer)
        signal.removeEventListener('abort', onLeave)
      }
    },
  }
}

/** The call's answer, or the signal's reason as soon as there is one: a call that does not listen is left alone. */
function ends<T>(call: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    // Within `then`, so that what is thrown before the first `await` is a rejection too.
    Promise.resolve()
      .then(() => call(signal))
      .then(resolve, reject)
  })
}

/** What a fault is outside: refused, and no more than that is said to the device. */
function unavailable(name: string, fault: CallFault): ProxyError {
  return new ProxyError('ERR_AUTHORIZER_UNAVAILABLE', `authorizer ${name}: ${fault.message}`, { cause: fault })
}

/** The device is gone, or we are: nobody waits for the answer. */
function left(signal: AbortSignal): ProxyError {
  if (signal.reason instanceof ProxyError) return signal.reason
  return new ProxyError('ERR_AUTHORIZER_UNAVAILABLE', 'nobody waits for the answer', { cause: signal.reason })
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error)).slice(0, 300)
