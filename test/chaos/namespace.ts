import { execFileSync } from 'node:child_process'
import { randomInt } from 'node:crypto'
import type { Teardowns } from '../support/proxy.ts'

/** A network of its own behind a wire of two ends, which can be cut so that neither side hears anything of it. */
export interface Namespace {
  /** Our end of the wire: who is inside connects to it. */
  readonly outside: string
  readonly inside: string
  /** Before a command line, to run it inside. */
  readonly prefix: readonly string[]
  /** From now on packets vanish, without any word to either side. */
  cut(): void
  mend(): void
  /** Most bytes that the kernel keeps for a reader inside who does not read. */
  receiveBuffer(bytes: number): void
  /** `tc netem` on the wire, such as `delay 20ms loss 1%`; the reason where this kernel has none. */
  netem(args: string): { readonly kind: 'set' } | { readonly kind: 'absent'; readonly why: string }
}

export type Opened =
  | { readonly kind: 'open'; readonly namespace: Namespace }
  | { readonly kind: 'absent'; readonly why: string }

const run = (command: string, ...args: readonly string[]): void => {
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
}
const why = (error: unknown): string => {
  // execFileSync adds what was printed.
  const said = (error as { stderr?: Buffer }).stderr?.toString().trim() ?? ''
  return said.split('\n')[0] || (error instanceof Error ? error.message : String(error))
}

/** Needs root and iproute2; says so where it cannot be had. Gone after the test. */
export function openNamespace(t: Teardowns): Opened {
  const tag = randomInt(0x10000).toString(16)
  const name = `bg-${tag}`
  const [outer, inner] = [`bgo${tag}`, `bgi${tag}`]
  // 198.18.0.0/15 is for tests between networks (RFC 2544), so that no route of the machine is in the way.
  const net = `198.${18 + randomInt(2)}.${randomInt(256)}.${4 * randomInt(63)}`.split('.')
  const host = (last: number) => [...net.slice(0, 3), Number(net[3]) + last].join('.')
  const [outside, inside] = [host(1), host(2)]
  try {
    run('ip', 'netns', 'add', name)
  } catch (error) {
    return { kind: 'absent', why: why(error) }
  }
  t.teardown(() => {
    try {
      // The other end goes with it.
      run('ip', 'netns', 'del', name)
    } catch {
      // It is gone already.
    }
  })
  const within = (...args: readonly string[]) => run('ip', '-n', name, ...args)
  try {
    run('ip', 'link', 'add', outer, 'type', 'veth', 'peer', 'name', inner, 'netns', name)
    run('ip', 'addr', 'add', `${outside}/30`, 'dev', outer)
    run('ip', 'link', 'set', outer, 'up')
    within('addr', 'add', `${inside}/30`, 'dev', inner)
    within('link', 'set', inner, 'up')
    within('link', 'set', 'lo', 'up')
  } catch (error) {
    return { kind: 'absent', why: why(error) }
  }
  return {
    kind: 'open',
    namespace: {
      outside,
      inside,
      prefix: ['ip', 'netns', 'exec', name],
      cut: () => within('link', 'set', inner, 'down'),
      mend: () => within('link', 'set', inner, 'up'),
      receiveBuffer: (bytes) =>
        run('ip', 'netns', 'exec', name, 'sh', '-c', `echo 4096 ${bytes} ${bytes} > /proc/sys/net/ipv4/tcp_rmem`),
      netem(args) {
        try {
          run('tc', 'qdisc', 'replace', 'dev', outer, 'root', 'netem', ...args.split(' '))
          run('ip', 'netns', 'exec', name, 'tc', 'qdisc', 'replace', 'dev', inner, 'root', 'netem', ...args.split(' '))
          return { kind: 'set' }
        } catch (error) {
          return { kind: 'absent', why: why(error) }
        }
      },
    },
  }
}
