import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { peerKind } from '../peers/find.ts'
import type { Options } from './bench.ts'
import { canPin } from './proc.ts'
import type { Answer } from './summary.ts'

/** Where and with what a run was made: figures without it mean nothing. */
export interface Machine {
  readonly date: string
  readonly commit: string
  readonly cpu: string
  readonly cores: number
  readonly memoryGb: number
  readonly kernel: string
  readonly os: string
  readonly pinned: boolean
  /** Processes that wanted to run just before: on a machine at rest far below one. */
  readonly loadBefore: number
  readonly load: string
  readonly smoke: boolean
  readonly rounds: number
  readonly broker: string
  readonly peers: readonly { readonly name: string; readonly version: string; readonly about: string }[]
}

export interface Run extends Machine {
  readonly seconds: number
  readonly answers: readonly Answer[]
}

export function machine(peers: readonly string[], { smoke, rounds, broker }: Options): Machine {
  const cores = availableParallelism()
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    commit: commit(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores,
    memoryGb: Math.round(totalmem() / 1_073_741_824),
    kernel: release(),
    os: osName(),
    pinned: canPin && cores > 1,
    loadBefore: Math.round(loadavg()[0]! * 10) / 10,
    load: process.versions.bun === undefined ? `Node ${process.versions.node}` : `Bun ${process.versions.bun}`,
    smoke,
    rounds,
    broker,
    peers: peers.map((name) => {
      const kind = peerKind(name)!
      return { name: kind.name, version: (kind.version() ?? '').split('\n')[0]!, about: kind.about }
    }),
  }
}

function commit(): string {
  const git = (...args: readonly string[]) => spawnSync('git', args, { encoding: 'utf8', cwd: import.meta.dirname })
  const { status, stdout } = git('rev-parse', '--short', 'HEAD')
  if (status !== 0) return 'unknown'
  return `${stdout.trim()}${git('status', '--porcelain', 'src').stdout.trim() === '' ? '' : ' with changes'}`
}

function osName(): string {
  try {
    return /^PRETTY_NAME="?([^"\n]+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux'
  } catch {
    return 'Linux'
  }
}
