import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'

/** What /proc tells of a process that may end while it is read; `otherwise` when it has. */
function look<T>(read: () => T, otherwise: T): T {
  try {
    return read()
  } catch {
    return otherwise
  }
}

/** A process and all below it. */
export function treeOf(pid: number): readonly number[] {
  const tree = [pid]
  // Grows while it is walked.
  for (const each of tree) {
    const children = look(() => readFileSync(`/proc/${each}/task/${each}/children`, 'utf8'), '')
    tree.push(...children.split(' ').filter(Boolean).map(Number))
  }
  return tree
}

const kilobytes = (pid: number, field: 'VmRSS' | 'VmHWM'): number =>
  look(
    () => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]),
    0,
  )

/** Resident memory, in bytes, of all these together. */
export const residentOf = (pids: readonly number[]): number =>
  pids.reduce((sum, pid) => sum + kilobytes(pid, 'VmRSS') * 1_024, 0)

/** The most that one process held since `forgetPeak`, in bytes: the kernel misses no peak between two looks. */
export const peakOf = (pid: number): number => kilobytes(pid, 'VmHWM') * 1_024

export const forgetPeak = (pid: number): void => look(() => writeFileSync(`/proc/${pid}/clear_refs`, '5'), undefined)

function openOf(pid: number): readonly string[] {
  const folder = `/proc/${pid}/fd`
  return look(() => readdirSync(folder), []).map((fd) => look(() => readlinkSync(`${folder}/${fd}`), ''))
}

export const descriptorsOf = (pids: readonly number[]): number => pids.reduce((sum, pid) => sum + openOf(pid).length, 0)

/** TCP sockets that these processes hold toward a port, in any state: one that is not closed is not given back. */
export function dialledOf(pids: readonly number[], port: number): number {
  const held = new Set(pids.flatMap(openOf))
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  const rows = ['tcp', 'tcp6'].flatMap((file) => look(() => readFileSync(`/proc/net/${file}`, 'utf8'), '').split('\n'))
  return rows.filter((row) => {
    const fields = row.trim().split(/\s+/)
    return fields[2]?.endsWith(`:${hex}`) === true && held.has(`socket:[${fields[9]}]`)
  }).length
}
