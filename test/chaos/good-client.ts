// The good client's own process: whatever a row does to its own event loop, the latency measured here is the door's.
// The first line of standard input is what to do; its end asks for the last message and the end.
import { createInterface } from 'node:readline'
import mqtt from 'mqtt'
import type { GoodFact, GoodOrders } from './good.ts'

const WAIT_MS = 10_000

const tell = (fact: GoodFact): void => void process.stdout.write(`${JSON.stringify(fact)}\n`)

function begin(orders: GoodOrders): () => void {
  const { topic, everyMs, returns, ...connection } = orders
  const client = mqtt.connect({
    protocol: 'mqtts',
    host: '127.0.0.1',
    protocolVersion: 5,
    keepalive: 30,
    connectTimeout: 10_000,
    reconnectPeriod: returns ? 200 : 0,
    // Without it the client gives up for good at the first «server unavailable».
    reconnectOnConnackError: returns,
    resubscribe: false,
    ...connection,
  })
  /** When each message that is under way was sent. */
  const sent = new Map<string, number>()
  let count = 0
  let ready = false
  let ending = false
  let lostAt: number | null = null
  client.on('connect', async () => {
    try {
      await client.subscribeAsync(topic, { qos: 1 })
    } catch {
      // The connection ended again, and `close` tells of that.
      return
    }
    ready = true
    tell(lostAt === null ? { kind: 'up' } : { kind: 'back', ms: performance.now() - lostAt })
    lostAt = null
  })
  client.on('close', () => {
    ready = false
    if (ending) return
    // What was not acknowledged is the device's to send again; only a steady connection promises its echo.
    sent.clear()
    lostAt ??= performance.now()
    tell({ kind: 'lost', detail: 'the connection closed' })
  })
  client.on('disconnect', (packet) => tell({ kind: 'lost', detail: `DISCONNECT ${packet.reasonCode}` }))
  client.on('error', (error) => tell({ kind: 'lost', detail: error.message }))
  client.on('message', (_, payload) => {
    const at = sent.get(payload.toString())
    if (at === undefined) return
    sent.delete(payload.toString())
    tell({ kind: 'echo', ms: performance.now() - at })
    if (ending && sent.size === 0) finish()
  })
  const timer = setInterval(() => {
    for (const [payload, at] of sent) {
      if (performance.now() - at < WAIT_MS) continue
      sent.delete(payload)
      tell({ kind: 'fault', detail: `message ${payload} did not come back within ${WAIT_MS} ms` })
    }
    if (!ready || ending) return
    const payload = `${count++}`
    sent.set(payload, performance.now())
    // A publish that ends with its connection is told of by `close`.
    client.publishAsync(topic, payload, { qos: 1 }).catch(() => {})
  }, everyMs)
  const finish = (): void => {
    clearInterval(timer)
    tell({ kind: 'done', connected: client.connected })
    client.end(true, () => process.exit(0))
  }
  return () => {
    if (ending) return
    ending = true
    if (sent.size === 0) finish()
    else
      setTimeout(() => {
        tell({ kind: 'fault', detail: `${sent.size} messages did not come back before the end` })
        finish()
      }, WAIT_MS).unref()
  }
}

let end: (() => void) | null = null
const input = createInterface({ input: process.stdin })
input.on('line', (line) => {
  end ??= begin(JSON.parse(line) as GoodOrders)
})
input.on('close', () => end?.())
