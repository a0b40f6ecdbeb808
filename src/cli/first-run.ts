import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'
import { writeStarter } from './starter.ts'

export interface FirstRun {
  readonly configFile: string
  /** True when the folder was made just now; false when it was there, with or without renewed certificates. */
  readonly created: boolean
}

/**
 * Makes the folder of a run without `-c` once, and later renews its development certificates.
 * A folder that is not ours but has a configuration is used as it is.
 * @throws {Error} when something else stands there
 */
export function ensureFirstRun(dir: string): FirstRun {
  const configFile = join(dir, 'brokergate.yaml')
  const created = !existsSync(configFile)
  const starter = writeStarter(dir)
  if (starter.kind === 'ready') return { configFile: starter.configFile, created }
  if (!created) return { configFile, created: false }
  throw new Error(`${starter.reason}; give a configuration with -c, or move it away`)
}

/** Lines to paste into two terminals for a first publish and subscribe, with paths as seen from the current folder. */
export function pasteLines(dir: string): string {
  const near = (name: string): string => {
    const path = relative(process.cwd(), join(dir, name))
    return quoted(path.startsWith('..') ? join(dir, name) : path)
  }
  const file = (name: string): string => near(join('pki', name))
  const mosquitto = `--cafile ${file('ca.pem')} --cert ${file('device.pem')} --key ${file('device.key')}`
  const js = `-C mqtts --ca ${file('ca.pem')} --cert ${file('device.pem')} --key ${file('device.key')}`
  const rows = [
    '# Mosquitto clients, MQTT on 8883',
    `mosquitto_sub -h localhost -p 8883 ${mosquitto} -i sub-1 -t 'hello/#' -v`,
    `mosquitto_pub -h localhost -p 8883 ${mosquitto} -i pub-1 -t hello/world -m 'it works'`,
    '',
    '# Mosquitto clients, MQTT on port 443 (here 10443), chosen by ALPN',
    `mosquitto_sub -h localhost -p 10443 --tls-alpn x-amzn-mqtt-ca ${mosquitto} -i sub-2 -t 'hello/#' -v`,
    `mosquitto_pub -h localhost -p 10443 --tls-alpn x-amzn-mqtt-ca ${mosquitto} -i pub-2 -t hello/world -m 'it works'`,
    '',
    '# MQTT.js',
    `npx mqtt sub -h localhost -p 8883 ${js} -i sub-3 -t 'hello/#' -v`,
    `npx mqtt pub -h localhost -p 8883 ${js} -i pub-3 -t hello/world -m 'it works'`,
    '',
    '# curl, HTTPS publish on 8443',
    `curl --cacert ${file('ca.pem')} --cert ${file('device.pem')} --key ${file('device.key')} -d 'it works' 'https://localhost:8443/topics/hello/world?qos=1'`,
    '',
    `# A browser: trust ${file('ca.pem')} (or open https://localhost:10443 once and accept it), sign a URL, paste it into the page`,
    `npx bun src/main.ts presign -c ${near('brokergate.yaml')}`,
    `# … and open ${near('browser.html')}`,
  ]
  return `${rows.join('\n')}\n`
}

/** For a POSIX shell, only where it is needed. */
function quoted(path: string): string {
  return /^[\w./@%+,:-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`
}
