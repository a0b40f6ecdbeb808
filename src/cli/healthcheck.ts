import { get } from 'node:http'
import { formatIssue, loadSettings } from '../config/load.ts'
import type { Print } from './check.ts'

const TIMEOUT_MS = 3_000
const DEFAULT_URL = 'http://127.0.0.1:9883/readyz'

export interface HealthcheckOptions {
  readonly file: string | null
  readonly url: string | null
  readonly env: NodeJS.ProcessEnv
  readonly print: Print
}

/** `brokergate healthcheck`: exit code 0 when `/readyz` answers 200 within three seconds, else 1 and why. */
export async function healthcheck(options: HealthcheckOptions): Promise<number> {
  let url = options.url ?? DEFAULT_URL
  if (options.url === null && options.file !== null) {
    const loaded = loadSettings(options.file, options.env)
    if (loaded.kind === 'invalid') {
      for (const issue of loaded.issues) options.print(formatIssue(issue))
      return 1
    }
    const { host, port } = loaded.settings.metrics.bind
    // An address that means «all» is reached by loopback.
    const name = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '[::1]' : host.includes(':') ? `[${host}]` : host
    url = `http://${name}:${port}/readyz`
  }
  return new Promise((resolve) => {
    const request = get(url, { timeout: TIMEOUT_MS }, (response) => {
      response.resume()
      options.print(`${url}: ${response.statusCode}`)
      resolve(response.statusCode === 200 ? 0 : 1)
    })
    request.on('timeout', () => request.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)))
    request.on('error', (error) => {
      options.print(`${url}: ${error.message}`)
      resolve(1)
    })
  })
}
