import cluster from 'node:cluster'
import type { Log } from './log.ts'
import type { Target } from './reload.ts'

// Reloads among processes: the primary asks every worker whether it could, and only then tells all of them to. Both ends
// are handed what carries messages, and share it with others: whatever is not theirs they leave alone.

interface Numbered {
  readonly number: number
}

type ToWorker<M> =
  /** What to start with. */
  | { readonly reload: 'material'; readonly material: M }
  | { readonly reload: 'prepare'; readonly attempt: number; readonly material: M }
  | { readonly reload: 'commit'; readonly attempt: number }
  | { readonly reload: 'abort'; readonly attempt: number }
  /** It cannot follow: another one is to take its place. */
  | { readonly reload: 'leave' }

type ToPrimary =
  | { readonly reload: 'ask' }
  /** It serves this generation. */
  | { readonly reload: 'serves'; readonly number: number }
  | { readonly reload: 'ready'; readonly attempt: number }
  | { readonly reload: 'refused'; readonly attempt: number; readonly issues: readonly string[] }
  | { readonly reload: 'living'; readonly numbers: readonly number[] }

/** For a worker to read its registries and to make everything. */
const PREPARE_DEADLINE_MS = 30_000
/** For the word to be heard; it is, however late, so that nothing depends on it. */
const COMMIT_DEADLINE_MS = 10_000

export interface WorkersOptions<M> {
  /** What counts now: what a worker that starts is given. */
  readonly current: () => M
  readonly tell: (workerId: number, message: unknown) => void
  readonly log: Log
  readonly prepareDeadlineMs?: number
  readonly commitDeadlineMs?: number
}

export interface WorkersTarget<M> extends Target<M> {
  /** To be called with every message of a worker; false when it is not for this. */
  heard(message: unknown, workerId: number): boolean
  /** The worker is gone: as it was asked to, or by itself. */
  ended(workerId: number, asAsked: boolean): void
  /** The generations that live in a worker, the oldest first; null while it has not said. */
  living(workerId: number): readonly number[] | null
}

interface Member {
  /** What it serves; null until it does. */
  serves: number | null
  living: readonly number[] | null
  /** Waits for its answer to an attempt: what stands against it. One that comes too late belongs to nobody. */
  answer: { readonly attempt: number; give(issues: readonly string[]): void } | null
  /** Waits for it to serve what it was told to. */
  served: (() => void) | null
}

/** The primary's end. */
export function workersTarget<M extends Numbered>(options: WorkersOptions<M>): WorkersTarget<M> {
  const { current, log } = options
  const members = new Map<number, Member>()
  /** Those that are being asked, and about what. */
  let asked: { readonly attempt: number; readonly material: M; readonly workers: ReadonlySet<number> } | null = null
  let attempts = 0
  const tell = (workerId: number, message: ToWorker<M>) => options.tell(workerId, message)

  /** One worker's answer: empty when it is ready. */
  const prepareOne = (workerId: number, member: Member, attempt: number, material: M): Promise<readonly string[]> =>
    new Promise((resolve) => {
      const deadlineMs = options.prepareDeadlineMs ?? PREPARE_DEADLINE_MS
      const timer = setTimeout(() => settle([`worker ${workerId} has not answered in ${deadlineMs} ms`]), deadlineMs)
      const settle = (issues: readonly string[]) => {
        clearTimeout(timer)
        member.answer = null
        resolve(issues)
      }
      member.answer = { attempt, give: settle }
      tell(workerId, { reload: 'prepare', attempt, material })
    })

  const commitOne = (workerId: number, member: Member, attempt: number): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(() => {
        log.error({ workerId }, 'a worker has not confirmed the settings yet')
        settle()
      }, options.commitDeadlineMs ?? COMMIT_DEADLINE_MS)
      const settle = () => {
        clearTimeout(timer)
        member.served = null
        resolve()
      }
      member.served = settle
      tell(workerId, { reload: 'commit', attempt })
    })

  /** A worker that started with what does not count any more, while others were asked. */
  async function catchUp(workerId: number, member: Member): Promise<void> {
    const material = current()
    const attempt = ++attempts
    const issues = await prepareOne(workerId, member, attempt, material)
    if (members.get(workerId) !== member) return
    if (issues.length === 0) return commitOne(workerId, member, attempt)
    for (const issue of issues) log.error({ workerId, generation: material.number }, issue)
    log.error({ workerId }, 'a worker cannot serve the settings in force; another one takes its place')
    tell(workerId, { reload: 'leave' })
  }

  function hears(message: ToPrimary, workerId: number): void {
    if (message.reload === 'ask') {
      members.set(workerId, { serves: null, living: null, answer: null, served: null })
      tell(workerId, { reload: 'material', material: current() })
      return
    }
    const member = members.get(workerId)
    if (member === undefined) return
    switch (message.reload) {
      case 'serves': {
        const first = member.serves === null
        member.serves = message.number
        member.served?.()
        if (first && message.number !== current().number && asked === null) void catchUp(workerId, member)
        break
      }
      case 'ready':
      case 'refused':
        if (member.answer?.attempt === message.attempt) {
          member.answer.give(message.reload === 'ready' ? [] : message.issues)
        }
        break
      case 'living':
        member.living = message.numbers
        break
    }
  }

  return {
    async prepare(material) {
      // One that is still starting comes later, with what counts then.
      const asking = [...members].filter(([, { serves }]) => serves !== null)
      const attempt = ++attempts
      asked = { attempt, material, workers: new Set(asking.map(([workerId]) => workerId)) }
      const answers = await Promise.all(
        asking.map(([workerId, member]) => prepareOne(workerId, member, attempt, material)),
      )
      // They read the same: what one finds, the others find.
      const issues = answers.find((answer) => answer.length > 0) ?? []
      if (issues.length > 0) await this.abort()
      return issues
    },

    async commit() {
      const { attempt, material, workers } = asked!
      asked = null
      await Promise.all(
        Array.from(members, async ([workerId, member]) => {
          if (workers.has(workerId)) await commitOne(workerId, member, attempt)
          else if (member.serves !== null && member.serves !== material.number) await catchUp(workerId, member)
        }),
      )
    },

    async abort() {
      const { attempt, workers } = asked!
      asked = null
      for (const workerId of workers) tell(workerId, { reload: 'abort', attempt })
    },

    heard(message, workerId) {
      if (!isOurs(message)) return false
      // Only our own workers speak on this channel, and they speak this form.
      hears(message as ToPrimary, workerId)
      return true
    },

    ended(workerId, asAsked) {
      const member = members.get(workerId)
      members.delete(workerId)
      // One that drains has no part in what comes; one that breaks down may do so by what it was asked to make.
      member?.answer?.give(asAsked ? [] : [`worker ${workerId} ended while it made the new settings possible`])
      member?.served?.()
    },

    living: (workerId) => members.get(workerId)?.living ?? null,
  }
}

/** A change that waits for the word, in a worker. */
export interface Waiting {
  commit(): void
  abort(): Promise<void>
}

export interface FollowerOptions<M> {
  readonly send: (message: unknown) => void
  readonly prepare: (material: M) => Promise<Waiting | { readonly issues: readonly string[] }>
  /** This process cannot go on. */
  readonly fail: (error: unknown) => void
}

export interface Follower {
  /** To be called with every message of the primary; false when it is not for this. */
  heard(message: unknown): boolean
  /** It serves this generation; what the primary has asked meanwhile is answered from here on. */
  serves(number: number): void
  living(numbers: readonly number[]): void
}

/** The worker's end: what it is told is done in that order, one after the other. */
export function follower<M extends Numbered>(options: FollowerOptions<M>): Follower {
  const tell = (message: ToPrimary) => options.send(message)
  let waiting: { readonly attempt: number; readonly number: number; readonly change: Waiting } | null = null
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
  let turn: Promise<void> = begun
  const inTurn = (run: () => void | Promise<void>) => {
    turn = turn.then(run).catch(options.fail)
  }

  const prepare = async (attempt: number, material: M): Promise<void> => {
    await waiting?.change.abort()
    waiting = null
    const prepared = await options
      .prepare(material)
      .catch((error: unknown) => ({ issues: [error instanceof Error ? error.message : String(error)] }))
    if ('issues' in prepared) return tell({ reload: 'refused', attempt, issues: prepared.issues })
    waiting = { attempt, number: material.number, change: prepared }
    tell({ reload: 'ready', attempt })
  }

  return {
    heard(message) {
      if (!isOurs(message)) return false
      // Only the primary speaks on this channel, and it speaks this form.
      const told = message as ToWorker<M>
      if (told.reload === 'prepare') inTurn(() => prepare(told.attempt, told.material))
      else if (told.reload === 'commit') {
        inTurn(() => {
          if (waiting?.attempt !== told.attempt) throw new Error('what was not prepared cannot count')
          const { number, change } = waiting
          waiting = null
          change.commit()
          tell({ reload: 'serves', number })
        })
      } else if (told.reload === 'abort') {
        inTurn(async () => {
          if (waiting?.attempt !== told.attempt) return
          const { change } = waiting
          waiting = null
          await change.abort()
        })
      } else if (told.reload === 'leave') options.fail(new Error('the settings in force cannot be served here'))
      return true
    },
    serves(number) {
      tell({ reload: 'serves', number })
      begin()
    },
    living: (numbers) => tell({ reload: 'living', numbers }),
  }
}

/** For the primary's first answer. */
const FIRST_DEADLINE_MS = 30_000

/** What a worker starts with. It is asked for before anything else, so that no worker reads a file that is broken by now. */
export function materialOfPrimary<M>(): Promise<M> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => process.exit(1), FIRST_DEADLINE_MS)
    // In the form of `cluster.ts`, whose own listeners come after this.
    const onMessage = (message: { readonly brokergate?: string; readonly data?: unknown } | null) => {
      if (message?.brokergate === 'drain') process.exit(0)
      if (message?.brokergate !== 'message' || !isOurs(message.data)) return
      const told = message.data as ToWorker<M>
      if (told.reload !== 'material') return
      clearTimeout(timer)
      process.off('message', onMessage)
      resolve(told.material)
    }
    process.on('message', onMessage)
    const ask: ToPrimary = { reload: 'ask' }
    cluster.worker?.send({ brokergate: 'message', data: ask })
  })
}

function isOurs(data: unknown): boolean {
  return typeof data === 'object' && data !== null && 'reload' in data
}
