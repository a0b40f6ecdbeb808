import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { eventually } from './e2e.ts'
import { freePort, type Teardowns, write } from './proxy.ts'

export interface MosquittoProcess {
  readonly port: number
  readonly pid: number
  /** Resolves when it accepts. */
  start(): Promise<void>
  /** SIGKILL, and resolves when it is gone. SIGTERM lets it say goodbye. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** What arrives from now on stays unread. */
  freeze(): void
}

export interface MosquittoProcessOptions {
  /** Every change is on disk at once; otherwise sessions end with the process. */
  readonly persistence: boolean
  readonly lines?: string
}

/** A real Mosquitto on one port that can be killed and started again as often as a test likes; gone after it. */
export async function mosquittoProcess(
  t: Teardowns,
  dir: string,
  { persistence, lines = '' }: MosquittoProcessOptions,
): Promise<MosquittoProcess> {
  const port = await freePort()
  const saved = persistence
    ? `persistence true\npersistence_location ${dir}/mosquitto/\nautosave_on_changes true\nautosave_interval 1\n`
    : 'persistence false\n'
  const config = write(
    dir,
    'mosquitto/process.conf',
    `listener ${port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_type error\nmax_inflight_messages 100\n${saved}${lines}\n`,
  )
  let child: ChildProcess | null = null
  const broker: MosquittoProcess = {
    port,
    get pid() {
      return child?.pid ?? 0
    },
    async start() {
      const started = spawn('mosquitto', ['-c', config], { stdio: 'ignore' })
      child = started
      await eventually(() => {
        if (started.exitCode !== null) throw new Error(`Mosquitto ended with ${started.exitCode}`)
        return accepts(port)
      }, 'Mosquitto')
    },
    async kill(signal = 'SIGKILL') {
      if (child === null || child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      child.kill(signal)
      await exited
    },
    freeze: () => void child?.kill('SIGSTOP'),
  }
  t.teardown(() => broker.kill())
  await broker.start()
  return broker
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port })
    const tell = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.once('connect', () => tell(true))
    socket.once('error', () => tell(false))
  })
}
