import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Where Linux tells of control groups and of the machine; another folder in tests. */
export interface MemoryFiles {
  readonly self: string
  readonly groups: string
  readonly machine: string
}

const SYSTEM: MemoryFiles = {
  self: '/proc/self/cgroup',
  groups: '/sys/fs/cgroup',
  machine: '/proc/meminfo',
}

/**
 * How much of the memory is in use, from 0 to 1; 0 where it cannot be told.
 *
 * With a limit of one's own it is the resident memory of this process. Without one it is what would kill it: the control
 * group's (version 2) where that has a limit, which all of its processes fill together, else the machine's. Pages of files
 * that nobody uses are given back before anybody is killed, so they do not count.
 */
export function memoryShare(limit: number | null, files: MemoryFiles = SYSTEM): number {
  if (limit !== null) return process.memoryUsage.rss() / limit
  return groupShare(files) ?? machineShare(files)
}

/** The fullest of the groups above this process that have a limit; null when none has. */
function groupShare({ self, groups }: MemoryFiles): number | null {
  const path = /^0::(\/.*)$/m.exec(read(self) ?? '')?.[1]
  if (path === undefined) return null
  let fullest: number | null = null
  for (let at = path; ; at = dirname(at)) {
    const folder = join(groups, at)
    const most = Number(read(join(folder, 'memory.max')) ?? Number.NaN)
    const now = Number(read(join(folder, 'memory.current')) ?? Number.NaN)
    if (most > 0 && now >= 0) {
      const idle = Number(/^inactive_file (\d+)$/m.exec(read(join(folder, 'memory.stat')) ?? '')?.[1] ?? 0)
      fullest = Math.max(fullest ?? 0, Math.max(0, now - idle) / most)
    }
    if (at === '/') return fullest
  }
}

function machineShare({ machine }: MemoryFiles): number {
  const text = read(machine) ?? ''
  const [total, available] = ['MemTotal', 'MemAvailable'].map((name) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? Number.NaN),
  )
  const share = 1 - available! / total!
  return share >= 0 ? share : 0
}

function read(file: string): string | null {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return null
  }
}
