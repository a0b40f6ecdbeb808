import type { RegisteredRecord } from './overlay.ts'
import type { RegisterAnswer, Registrar } from './self-registration.ts'

// A worker has its registrations written by the primary. Both ends are handed what carries messages, and share it with
// others: whatever is not theirs they leave alone.

type FromWorker = {
  readonly registry: 'register'
  readonly worker: number
  readonly request: number
  readonly name: string
  readonly record: RegisteredRecord
  readonly maxPerMinute: number
}

type FromPrimary =
  | {
      readonly registry: 'answer'
      readonly worker: number
      readonly request: number
      readonly answer: RegisterAnswer | null
    }
  | { readonly registry: 'changed'; readonly name: string }

/** For the primary to write and answer: a few milliseconds where the disk is well. */
const ANSWER_WITHIN_MS = 5_000
/** More devices than this wait at once for their answer: the primary does not keep up. */
const MAX_WAITING = 1_024

export interface RegistrarLink extends Registrar {
  /** What came from the primary. True if it was for this link. */
  heard(data: unknown): boolean
}

export interface RegistrarLinkOptions {
  readonly worker: number
  readonly send: (data: unknown) => void
  /** An overlay has grown. */
  readonly changed: (registry: string) => void
  readonly answerWithinMs?: number
}

/** The worker's end. */
export function registrarLink(options: RegistrarLinkOptions): RegistrarLink {
  const waiting = new Map<number, (answer: RegisterAnswer | null) => void>()
  let requests = 0
  return {
    register(name, record, maxPerMinute) {
      if (waiting.size >= MAX_WAITING) return Promise.reject(new Error('too many registrations wait for the primary'))
      const request = ++requests
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => settle(null), options.answerWithinMs ?? ANSWER_WITHIN_MS)
        const settle = (answer: RegisterAnswer | null) => {
          clearTimeout(timer)
          waiting.delete(request)
          if (answer === null) reject(new Error('the primary did not write it down'))
          else resolve(answer)
        }
        waiting.set(request, settle)
        const message: FromWorker = {
          registry: 'register',
          worker: options.worker,
          request,
          name,
          record,
          maxPerMinute,
        }
        options.send(message)
      })
    },
    heard(data) {
      if (!isOurs(data)) return false
      // Only the primary speaks on this channel, and it speaks this form.
      const message = data as FromPrimary
      if (message.registry === 'changed') options.changed(message.name)
      else if (message.worker === options.worker) waiting.get(message.request)?.(message.answer)
      return true
    },
  }
}

/** The primary's end: answers one message of a worker. True if it was for this link. */
export function answerWorker(registrar: Registrar, data: unknown, broadcast: (data: unknown) => void): boolean {
  if (!isOurs(data)) return false
  // Only our own workers speak on this channel, and they speak this form.
  const { worker, request, name, record, maxPerMinute } = data as FromWorker
  const reply = (answer: RegisterAnswer | null) => {
    const message: FromPrimary = { registry: 'answer', worker, request, answer }
    broadcast(message)
  }
  registrar.register(name, record, maxPerMinute).then(reply, () => reply(null))
  return true
}

/** For the workers: read on in this overlay. */
export function changedNotice(name: string): unknown {
  const message: FromPrimary = { registry: 'changed', name }
  return message
}

function isOurs(data: unknown): boolean {
  return typeof data === 'object' && data !== null && 'registry' in data
}
