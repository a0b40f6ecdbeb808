import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

// Processes of a measurement: started on a core of their own, their CPU time read from /proc, and ended whatever happens.

const STOP_WITHIN_MS = 5_000
const EXIT_WITHIN_MS = 2_000
/** USER_HZ, which is 100 on every Linux that we run on: proc(5). */
const TICK_NS = 10_000_000

const children = new Set<ChildProcess>()

const folders = new Set<string>()

/** A folder for the time of this process. */
export function temporaryFolder(prefix: string): string {
  const folder = mkdtempSync(join(tmpdir(), prefix))
  folders.add(folder)
  return folder
}

// Whatever ends us, also a failure in the middle, ends what we started. Nothing can be awaited here.
process.on('exit', () => {
  const pids = [...children].flatMap(({ pid }) => (pid === undefined ? [] : [pid]))
  const all = pids.flatMap(tree)
  for (const pid of pids) signalTo(pid, 'SIGTERM')
  const until = performance.now() + EXIT_WITHIN_MS
  while (pids.some(runs) && performance.now() < until) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
  for (const pid of all) if (runs(pid)) signalTo(pid, 'SIGKILL')
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.once(signal, () => process.exit(code))
}

export interface Started {
  readonly pid: number
  /** Rejects when the process ends before it was told to. */
  readonly failed: Promise<never>
  /** Resolves when it has ended, whyever. */
  readonly ended: Promise<void>
  signal(name: NodeJS.Signals): void
  /** From now on its end is no fault. */
  mayEnd(): void
  stop(): Promise<void>
}

export const canPin: boolean = spawnSync('taskset', ['--version']).status === 0

/** This process and all its threads from now on. */
export function pinSelf(cores: readonly number[]): void {
  if (canPin) spawnSync('taskset', ['-a', '-p', '-c', cores.join(','), String(process.pid)])
}

/** Who runs where: proxies never share a core with the load, where there are two. */
export interface Cores {
  readonly proxy: readonly number[]
  readonly load: readonly number[]
}

/** So many cores for the proxy, the others for the load; on a machine with too few they share what there is. */
export function coresFor(proxyCores: number, available: number): Cores {
  const all = Array.from({ length: available }, (_, core) => core)
  return available > proxyCores
    ? { proxy: all.slice(0, proxyCores), load: all.slice(proxyCores) }
    : { proxy: all, load: available > 1 ? all.slice(1) : all }
}

export interface StartOptions {
  readonly cwd: string
  readonly cores: readonly number[]
  /** Both outputs go here; its end is shown when the process fails. */
  readonly logFile: string
  readonly env?: Readonly<Record<string, string>>
}

/** Each replaces itself by the next, so that the process we know is the one that is measured. */
const AS_MANY_FILES_AS_MAY_BE = ['sh', '-c', 'ulimit -n "$(ulimit -Hn)"; exec "$@"', 'sh']

export function startProcess(command: string, args: readonly string[], options: StartOptions): Started {
  const { cwd, cores, logFile } = options
  const whole = [...AS_MANY_FILES_AS_MAY_BE, ...(canPin ? ['taskset', '-c', cores.join(',')] : []), command, ...args]
  const output = openSync(logFile, 'w')
  // Settings of ours in the environment would change what is measured.
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('BROKERGATE_'))
  const env = { ...Object.fromEntries(inherited), ...options.env }
  const child = spawn(whole[0]!, whole.slice(1), { cwd, env, stdio: ['ignore', output, output] })
  closeSync(output)
  children.add(child)
  let stopping = false
  const ended = new Promise<void>((resolve) => {
    child.once('close', resolve)
    child.once('error', () => resolve())
  }).then(() => {
    children.delete(child)
  })
  const failed = ended.then(() => {
    if (stopping) return new Promise<never>(() => {})
    throw new Error(`${command} ended by itself:\n${readFileSync(logFile, 'utf8').slice(-2_000)}`)
  })
  failed.catch(() => {})
  return {
    pid: child.pid ?? 0,
    failed,
    ended,
    signal: (name) => void child.kill(name),
    mayEnd() {
      stopping = true
    },
    async stop() {
      stopping = true
      if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
      const below = tree(child.pid)
      child.kill('SIGTERM')
      const late = new AbortController()
      await Promise.race([ended, sleep(STOP_WITHIN_MS, undefined, { signal: late.signal }).catch(() => {})])
      late.abort()
      if (children.has(child)) killTree(child.pid)
      await ended
      // A worker that waits for its last sessions outlives a primary that does not.
      for (const pid of below) if (runs(pid)) signalTo(pid, 'SIGKILL')
    },
  }
}

export interface Worker {
  /** Its first line; rejects when it ends without one. */
  readonly answer: Promise<string>
  stop(): Promise<void>
}

/** More load, in a process that yields to ours: what we measure must not wait for it. */
export function startWorker(script: string, options: object, cores: readonly number[]): Worker {
  const whole = [
    ...AS_MANY_FILES_AS_MAY_BE,
    ...['nice', '-n', '5'],
    ...(canPin ? ['taskset', '-c', cores.join(',')] : []),
    process.execPath,
    script,
    JSON.stringify(options),
  ]
  const child = spawn(whole[0]!, whole.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] })
  children.add(child)
  let text = ''
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const answer = new Promise<string>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.includes('\n')) resolve(text.slice(0, text.indexOf('\n')))
    })
    void ended.then(() => {
      children.delete(child)
      reject(new Error(`${script} ended without an answer`))
    })
  })
  answer.catch(() => {})
  return {
    answer,
    async stop() {
      child.kill('SIGKILL')
      await ended
    },
  }
}

function killTree(pid: number): void {
  for (const one of tree(pid).reverse()) signalTo(one, 'SIGKILL')
}

function signalTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It ended in between.
  }
}

/** Z: it has ended, and we have not asked how. */
function runs(pid: number): boolean {
  const state = statFields(pid)?.[0]
  return state !== undefined && state !== 'Z'
}

/** A process and all below it: workers are children of their primary. */
function tree(root: number): number[] {
  const childrenOf = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const parent = Number(statFields(Number(name))?.[1] ?? -1)
    childrenOf.set(parent, [...(childrenOf.get(parent) ?? []), Number(name)])
  }
  const found = [root]
  for (const pid of found) found.push(...(childrenOf.get(pid) ?? []))
  return found
}

/** Fields of /proc/<pid>/stat from the third on (state); the second is a name that may hold spaces. */
function statFields(pid: number): readonly string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return null
  }
}

/** CPU time of one moment; only the difference of two means something. */
export interface CpuReading {
  /** Nanoseconds by thread, from the scheduler. */
  readonly threads: ReadonlyMap<string, number>
  /** Nanoseconds by process, in steps of a tick, with those of threads that have ended. */
  readonly processes: ReadonlyMap<number, number>
}

export function readCpu(root: number): CpuReading {
  const threads = new Map<string, number>()
  const processes = new Map<number, number>()
  for (const pid of tree(root)) {
    const stat = statFields(pid)
    if (stat === null) continue
    // utime and stime, fields 14 and 15.
    processes.set(pid, (Number(stat[11]) + Number(stat[12])) * TICK_NS)
    for (const task of tasks(pid)) {
      try {
        const [onCpu] = readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')
        threads.set(`${pid}/${task}`, Number(onCpu))
      } catch {
        // A thread that ended in between, or a kernel without schedstat: the ticks of the process know.
      }
    }
  }
  return { threads, processes }
}

function tasks(pid: number): readonly string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch {
    return []
  }
}

/** Microseconds of CPU between two readings, over all threads of all processes. */
export function cpuBetween(before: CpuReading, after: CpuReading): number {
  const whole = [...before.threads.keys()].every((thread) => after.threads.has(thread))
  const [from, to]: readonly ReadonlyMap<string | number, number>[] =
    whole && after.threads.size > 0 ? [before.threads, after.threads] : [before.processes, after.processes]
  let total = 0
  for (const [key, value] of to!) total += value - (from!.get(key) ?? 0)
  return total / 1_000
}

/** Resident memory of a process and all below it, bytes. Pages that several share count once for each. */
export function residentBytes(root: number): number {
  let total = 0
  for (const pid of tree(root)) {
    try {
      const [, kilobytes] = readFileSync(`/proc/${pid}/status`, 'utf8').match(/^VmRSS:\s+(\d+) kB$/m) ?? []
      total += Number(kilobytes ?? 0) * 1_024
    } catch {
      // It ended in between.
    }
  }
  return total
}

/** Whether SIGHUP has a handler there: signal 1 is bit 0 of SigCgt, proc(5). */
export function catchesHangUp(pid: number): boolean {
  try {
    const [, mask] = readFileSync(`/proc/${pid}/status`, 'utf8').match(/^SigCgt:\s+([0-9a-f]+)$/m) ?? []
    return (Number.parseInt(mask?.at(-1) ?? '0', 16) & 1) === 1
  } catch {
    return false
  }
}

/** The processes below one, for whoever replaces them. */
export const processesOf = (root: number): readonly number[] => tree(root)
