import { execFile } from 'node:child_process'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import { promisify } from 'node:util'
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { ca, device, type Gateway } from './gateway.ts'
import type { Teardowns } from './proxy.ts'

const exec = promisify(execFile)
const MAIN = new URL('../../src/main.ts', import.meta.url).pathname

/** `brokergate …` on this runtime; rejects when it ends with another code than 0. */
export async function brokergate(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> {
  const { stdout } = await exec(process.execPath, [MAIN, ...args], { env: { ...process.env, ...env } })
  return stdout.trim()
}

export interface HttpAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly body: string
}

export interface HttpCall extends Omit<RequestOptions, 'headers'> {
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
  readonly certificate?: { readonly chainPem: string; readonly keyPem: string }
  readonly alpn?: readonly string[]
}

/** One HTTPS request with SNI and Host `localhost` unless told; the connection is not used again. */
export function call(port: number, path: string, options: HttpCall = {}): Promise<HttpAnswer> {
  const { body, certificate, alpn, headers, ...rest } = options
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      {
        host: '127.0.0.1',
        port,
        path,
        method: 'POST',
        servername: 'localhost',
        ca: ca.certPem,
        agent: false,
        ...(certificate !== undefined && { cert: certificate.chainPem, key: certificate.keyPem }),
        ...(alpn !== undefined && { ALPNProtocols: [...alpn] }),
        ...rest,
        headers: { host: `localhost:${port}`, ...headers },
      },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks).toString(),
          }),
        )
        response.on('error', reject)
      },
    )
    request.on('error', reject)
    request.end(body)
  })
}

/** curl as a user types it; answers what it printed. */
export async function curl(args: readonly string[]): Promise<string> {
  const { stdout } = await exec('curl', ['--silent', '--show-error', '--max-time', '15', ...args])
  return stdout
}

/** MQTT.js as a device. `url` is `mqtts://…` or `wss://…/mqtt…`; no certificate unless given. */
export async function connectDevice(t: Teardowns, url: string, options: IClientOptions = {}): Promise<MqttClient> {
  const client = mqtt.connect(url, {
    ca: ca.certPem,
    servername: 'localhost',
    reconnectPeriod: 0,
    protocolVersion: 4,
    clientId: `dev-${Math.random().toString(36).slice(2, 10)}`,
    connectTimeout: 10_000,
    ...options,
  } as IClientOptions)
  t.teardown(() => client.endAsync(true).catch(() => {}))
  await new Promise<void>((resolve, reject) => {
    client.once('connect', () => resolve())
    client.once('error', reject)
    client.once('close', () => reject(new Error('closed before CONNACK')))
  })
  client.on('error', () => {})
  return client
}

export const withCertificate: IClientOptions = { cert: device.chainPem, key: device.keyPem }

const MQTTJS = new URL('./mqttjs-device.mjs', import.meta.url).pathname

/** MQTT.js over WSS, in a process of its own, led to an address; resolves when its publish was acknowledged. */
export async function publishOverWss(
  url: string,
  address: string,
  payload: string,
  options: IClientOptions = {},
): Promise<void> {
  const way = {
    url,
    address: address.replace(/[[\]]/g, ''),
    topic: 'ways/in',
    payload,
    options: {
      protocolVersion: 4,
      clientId: `wss-${Math.random().toString(36).slice(2, 10)}`,
      ...options,
      wsOptions: { ca: ca.certPem, ...options.wsOptions },
    },
  }
  const { stdout } = await exec('node', [MQTTJS, JSON.stringify(way)])
  const result = JSON.parse(stdout) as { ok: boolean; error?: string }
  if (!result.ok) throw new Error(result.error)
}

/** Straight at the broker, past the door: what has really arrived there. */
export async function witness(t: Teardowns, gateway: Pick<Gateway, 'brokerPort'>, filter: string) {
  const seen: { readonly topic: string; readonly payload: string }[] = []
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${gateway.brokerPort}`, { protocolVersion: 5 })
  t.teardown(() => client.endAsync(true))
  client.on('message', (topic, payload) => seen.push({ topic, payload: payload.toString() }))
  await client.subscribeAsync(filter, { qos: 1 })
  return seen
}
