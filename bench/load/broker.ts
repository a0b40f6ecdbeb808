import { join } from 'node:path'
import type { BrokerKind } from '../harness/bench.ts'
import { startProcess } from '../harness/proc.ts'
import { write } from '../peers/materials.ts'
import { accepts, freePort, untilReady } from '../peers/peer.ts'
import { type Sink, startSink } from './sink.ts'

/** What stands behind a proxy. */
export interface Broker {
  readonly port: number
  /** Null for a real broker, which counts nothing for us. */
  readonly sink: Sink | null
  stop(): Promise<void>
}

export async function startBroker(kind: BrokerKind, folder: string, cores: readonly number[]): Promise<Broker> {
  if (kind === 'sink') {
    const sink = await startSink()
    return { port: sink.port, sink, stop: () => sink.close() }
  }
  const port = await freePort()
  const file = write(folder, 'mosquitto.conf', `listener ${port} 127.0.0.1\nallow_anonymous true\n${AS_MUCH_AS_COMES}`)
  const started = startProcess('mosquitto', ['-c', file], {
    cwd: folder,
    cores,
    logFile: join(folder, 'mosquitto.out'),
  })
  await untilReady(started, () => accepts(port))
  return { port, sink: null, stop: started.stop }
}

const AS_MUCH_AS_COMES = `${process.getuid?.() === 0 ? 'user root\n' : ''}log_type none
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
`
