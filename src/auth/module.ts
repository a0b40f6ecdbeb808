import { pathToFileURL } from 'node:url'
import { readAnswer, resultOf } from './answer.ts'
import type { Asked, AskedDeps, Authorizer, EntryOf } from './authorizer.ts'
import { CallFault, guard } from './guard.ts'
import { requestOf } from './question.ts'

/**
 * Asks an ES module of the operator's own, within this process. Its answer is read exactly as a webhook's body is.
 *
 * - Loaded once, at the first question or by `check`; another file or other options are another authorizer.
 * - Errors: what it throws, what comes after the deadline, and what is no answer. A module that goes on after the
 *   deadline is left alone, and its answer is not looked at; after a few the circuit breaker keeps it in peace.
 */
export function moduleAuthorizer(entry: EntryOf<'module'>, deps: AskedDeps): Asked {
  const { name, timeoutMs, concurrency, lifetimes } = entry
  const guarded = guard({ name, timeoutMs, concurrency, ...deps })
  let loading: Promise<Authorizer> | null = null
  const load = () => {
    loading ??= loadModule(entry)
    return loading
  }
  return {
    ask: (question, signal) =>
      guarded.run(
        async (ending) => {
          const authorizer = await load()
          const answer = await authorizer.authorize(requestOf(question), ending)
          return readAnswer(answer, { lifetimes, principalId: question.certificate?.id ?? null })
        },
        signal,
        resultOf,
      ),
    problem: () =>
      load().then(
        () => null,
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      ),
    close() {},
  }
}

async function loadModule({ path, options, digest }: EntryOf<'module'>): Promise<Authorizer> {
  // Modules are kept by URL for good: a file that was changed needs another one.
  const loaded: unknown = await import(`${pathToFileURL(path).href}?${digest}`)
  const make = typeof loaded === 'object' && loaded !== null && 'default' in loaded ? loaded.default : undefined
  if (typeof make !== 'function') throw new CallFault('unusable', `${path} has no function as its default export`)
  const made: unknown = await make(options)
  if (!isAuthorizer(made)) throw new CallFault('unusable', `${path} made nothing with a function authorize`)
  return made
}

function isAuthorizer(made: unknown): made is Authorizer {
  return typeof made === 'object' && made !== null && 'authorize' in made && typeof made.authorize === 'function'
}
