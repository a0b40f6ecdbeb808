import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { connect as connectTls, createSecureContext } from 'node:tls'
import type { Teardowns } from './proxy.ts'

// bun|node test/support/storm.ts <options as JSON>
// Devices that all want to be in at once, in a process of their own. Each tries again as SDKs do: after a while that doubles,
// half of it random. One line of JSON when the last is in or time is up; after `again` on its input there is another one.

export interface StormOptions {
  readonly port: number
  readonly devices: number
  readonly prefix: string
  readonly ca: string
  readonly cert: string
  readonly key: string
  /** They first try evenly over so long. */
  readonly overMs: number
  readonly giveUpMs: number
  /** So many more say hello and then nothing. */
  readonly silent?: number
  /** User name of CONNECT, for domains that ask an authorizer about it. */
  readonly username?: string
  readonly password?: string
}

export interface StormResult {
  readonly inside: number
  /** Tries that ended before CONNACK. */
  readonly refused: number
  /** CONNACKs with another code than 0, by code. */
  readonly codes: Readonly<Record<string, number>>
  /** Of the last one that came in. */
  readonly seconds: number
  /** Tries that had no answer and no end in their time. */
  readonly hung: number
  /** Silent ones that were closed by the other side. */
  readonly silentClosed: number
}

const TRY_MS = 90_000
const BACKOFF = { firstMs: 250, mostMs: 4_000 }

export interface Storm {
  /** Of all devices, since the start or the last `again`. */
  result(): Promise<StormResult>
  /** Waits anew for all to be in. */
  again(): void
  stop(): void
}

/** Starts it beside the test; stopped after the test. */
export function startStorm(t: Teardowns, options: StormOptions): Storm {
  const child: ChildProcess = spawn(process.execPath, [new URL(import.meta.url).pathname, JSON.stringify(options)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const exited = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
  return {
    async result() {
      const { value, done } = await lines.next()
      if (done === true) throw new Error('the storm ended without a word')
      return JSON.parse(value) as StormResult
    },
    again: () => void child.stdin!.write('again\n'),
    stop: () => void child.kill('SIGKILL'),
  }
}

async function main(options: StormOptions): Promise<void> {
  const { port, devices, prefix, overMs, giveUpMs, silent = 0 } = options
  const hello = silent > 0 ? await ownHello() : Buffer.alloc(0)
  const secureContext = createSecureContext({ ca: options.ca, cert: options.cert, key: options.key })
  const codes: Record<string, number> = {}
  let [inside, refused, hung, silentClosed] = [0, 0, 0, 0]
  let from = performance.now()
  let lastInside = from

  const attempt = (index: number, speaks: boolean): Promise<boolean> =>
    new Promise((resolve) => {
      const socket = connectTls({ host: '127.0.0.1', port, servername: 'localhost', secureContext })
      let settled: boolean | null = null
      const settle = (yes: boolean) => {
        if (settled !== null) return
        settled = yes
        clearTimeout(timer)
        if (!yes) socket.destroy()
        resolve(yes)
      }
      const timer = setTimeout(() => {
        hung++
        settle(false)
      }, TRY_MS)
      socket.on('error', () => {})
      socket.on('close', () => {
        if (settled === null) return settle(false)
        if (!settled) return
        // It was in; whoever loses its session comes back.
        inside--
        void stay(index)
      })
      socket.once('data', (chunk: Buffer) => {
        const code = chunk[0] === 0x20 ? chunk[3]! : -1
        if (code !== 0) codes[code] = (codes[code] ?? 0) + 1
        settle(code === 0)
      })
      socket.once('secureConnect', () => {
        if (speaks) socket.write(connectPacket(`${prefix}-${index}`, options))
      })
    })

  async function stay(index: number): Promise<void> {
    for (let tries = 0; ; tries++) {
      if (await attempt(index, true)) {
        inside++
        lastInside = performance.now()
        return
      }
      refused++
      const ceiling = Math.min(BACKOFF.mostMs, BACKOFF.firstMs * 2 ** tries)
      await sleep(ceiling / 2 + (Math.random() * ceiling) / 2)
    }
  }

  /** TCP, what a TLS client says first, and no more. */
  function keepSilent(): void {
    const socket = connect(port, '127.0.0.1', () => socket.write(hello))
    socket.on('error', () => {})
    socket.on('data', () => {})
    socket.on('close', () => silentClosed++)
  }

  process.stdin.on('end', () => process.exit())
  process.stdin.on('data', (chunk: Buffer) => {
    if (!String(chunk).includes('again')) return
    from = performance.now()
    void settle()
  })
  for (let index = 0; index < Math.max(devices, silent); index++) {
    setTimeout(
      () => {
        if (index < devices) void stay(index)
        if (index < silent) keepSilent()
      },
      (index * overMs) / Math.max(devices, silent),
    )
  }
  void settle()

  async function settle(): Promise<void> {
    await sleep(250)
    while ((inside < devices || silentClosed < silent) && performance.now() - from < giveUpMs) await sleep(50)
    const seconds = (lastInside - from) / 1_000
    console.log(JSON.stringify({ inside, refused, codes, seconds, hung, silentClosed } satisfies StormResult))
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** What a TLS client of this runtime says first: a whole one, so that it is answered. */
async function ownHello(): Promise<Buffer> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const client = connectTls({ host: '127.0.0.1', port, servername: 'localhost' }).on('error', () => {})
  const [socket] = (await once(server, 'connection')) as [import('node:net').Socket]
  const [bytes] = (await once(
    socket.on('error', () => {}),
    'data',
  )) as [Buffer]
  client.destroy()
  socket.destroy()
  server.close()
  return bytes
}

/** MQTT 3.1.1, clean session, no keep alive. */
function connectPacket(clientId: string, { username, password }: StormOptions): Buffer {
  const text = (value: string): Buffer =>
    Buffer.concat([Buffer.from([0, Buffer.byteLength(value)]), Buffer.from(value)])
  const flags = 2 | (username === undefined ? 0 : 0x80) | (password === undefined ? 0 : 0x40)
  const body = Buffer.concat([
    text('MQTT'),
    Buffer.from([4, flags, 0, 0]),
    text(clientId),
    ...(username === undefined ? [] : [text(username)]),
    ...(password === undefined ? [] : [text(password)]),
  ])
  return Buffer.concat([Buffer.from([0x10, body.length]), body])
}

if (import.meta.main) await main(JSON.parse(process.argv[2]!) as StormOptions)
