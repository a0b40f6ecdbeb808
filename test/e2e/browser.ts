import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { accessSync, constants, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'

/** What the page does: connects, subscribes, publishes to the same topic and waits for its own message. */
export interface BrowserJob {
  /** Such as `wss://iot.example.com:10443/mqtt`, with its query. */
  readonly url: string
  /** The certificate of the server, PEM; no other key is believed. */
  readonly certificate: string
  /** Names that lead to 127.0.0.1 in this browser, whatever the network says. */
  readonly localNames?: readonly string[]
  readonly topic: string
  readonly payload: string
  /** Options of MQTT.js that JSON can carry: clientId, protocolVersion, username, password… */
  readonly options?: Readonly<Record<string, unknown>>
  /** From the start of the browser to its report. */
  readonly withinMs?: number
}

export interface BrowserReport {
  readonly connected: boolean
  /** What came back on the topic; null when nothing did. */
  readonly received: string | null
  /** What MQTT.js or the browser said went wrong. */
  readonly error: string | null
  readonly userAgent: string
}

const CHROMIUM = '/usr/bin/chromium'
const BUNDLE = new URL('../../node_modules/mqtt/dist/mqtt.min.js', import.meta.url).pathname
const WITHIN_MS = 60_000

export const hasBrowser: boolean = isExecutable(CHROMIUM)

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** A page in a real Chromium that speaks MQTT over WebSocket; browser, profile and page are gone after the test. */
export async function inBrowser(t: ExecutionContext, job: BrowserJob): Promise<BrowserReport> {
  const reported = Promise.withResolvers<BrowserReport>()
  const page = await servePage(t, job, reported.resolve)
  const browser = startChromium(t, page, job)
  const log: string[] = []
  browser.stderr?.on('data', (chunk: Buffer) => log.push(chunk.toString()))
  const withinMs = job.withinMs ?? WITHIN_MS
  const timer = setTimeout(() => {
    reported.reject(new Error(`the browser reported nothing within ${withinMs} ms\n${log.join('').slice(-2_000)}`))
  }, withinMs)
  browser.once('exit', (code) => {
    reported.reject(new Error(`the browser ended with ${code}\n${log.join('').slice(-2_000)}`))
  })
  browser.once('error', reported.reject)
  try {
    return await reported.promise
  } finally {
    clearTimeout(timer)
  }
}

async function servePage(t: ExecutionContext, job: BrowserJob, report: (report: BrowserReport) => void) {
  const server: Server = createServer((request, response) => {
    if (request.method === 'POST') {
      let body = ''
      request.on('data', (chunk: Buffer) => {
        body += chunk.toString()
      })
      request.on('end', () => {
        response.end()
        report(JSON.parse(body) as BrowserReport)
      })
      return
    }
    const isBundle = request.url === '/mqtt.js'
    response.setHeader('content-type', `${isBundle ? 'text/javascript' : 'text/html'}; charset=utf-8`)
    response.end(request.url === '/' ? pageOf(job) : isBundle ? readFileSync(BUNDLE) : '')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

/** In a folder and a process group of its own, because its helpers outlive it otherwise. */
function startChromium(t: ExecutionContext, page: string, { certificate, localNames = [] }: BrowserJob): ChildProcess {
  const home = mkdtempSync(join(tmpdir(), 'brokergate-chromium-'))
  const rules = localNames.map((name) => `MAP ${name} 127.0.0.1`).join(', ')
  const args = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    `--user-data-dir=${home}`,
    `--ignore-certificate-errors-spki-list=${pinOf(certificate)}`,
    ...(rules === '' ? [] : [`--host-resolver-rules=${rules}`]),
    page,
  ]
  const env = { PATH: process.env.PATH, HOME: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home }
  const child = spawn(CHROMIUM, args, { detached: true, env, stdio: ['ignore', 'ignore', 'pipe'] })
  const exited = new Promise((resolve) => child.once('exit', resolve).once('error', resolve))
  const kill = () => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    } catch {
      // All of the group are gone.
    }
  }
  // A test that times out never comes to its teardown.
  process.once('exit', kill)
  t.teardown(async () => {
    kill()
    await exited
    process.off('exit', kill)
    rmSync(home, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  })
  return child
}

/** RFC 7469 §2.4. */
function pinOf(certificate: string): string {
  const spki = new X509Certificate(certificate).publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(spki).digest('base64')
}

function pageOf({ url, topic, payload, options = {} }: BrowserJob): string {
  const job = JSON.stringify({ url, topic, payload, options }).replaceAll('<', '\\u003c')
  return `<!doctype html><title>MQTT</title><script src="/mqtt.js"></script><script>
const { url, topic, payload, options } = ${job}
let connected = false
let reported = false
function report(received, error) {
  if (reported) return
  reported = true
  const body = JSON.stringify({ connected, received, error, userAgent: navigator.userAgent })
  fetch('/report', { method: 'POST', body })
}
try {
  const client = mqtt.connect(url, { reconnectPeriod: 0, connectTimeout: 20000, ...options })
  client.on('connect', () => {
    connected = true
    client.subscribe(topic, { qos: 1 }, (error, granted) => {
      if (error) return report(null, 'subscribe: ' + error.message)
      client.publish(topic, payload, { qos: 1 }, (failed) => failed && report(null, 'publish: ' + failed.message))
    })
  })
  let received = null
  client.on('message', (name, bytes) => {
    received = bytes.toString()
    client.end()
  })
  client.on('error', (error) => report(null, String(error && error.message || error)))
  client.on('close', () => report(received, received === null ? 'closed' : null))
} catch (error) {
  report(null, String(error))
}
</script>`
}
