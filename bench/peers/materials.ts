import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createCa, type Issued, issueDevice, issueServer } from '../../src/cli/pki.ts'

// Certificates and keys of one run, in a folder that every peer reads.

export const SERVER_NAME = 'bench.example.com'
/** The server name whose devices show a token, not a certificate. */
export const TOKEN_NAME = 'tokens.example.com'
/** The server name of MQTT over WebSocket. */
export const WSS_NAME = 'wss.example.com'

export interface Materials {
  readonly folder: string
  readonly caPem: string
  /** Several, since a fleet is not one certificate. */
  readonly devices: readonly Pair[]
  /** Of a CA that no proxy knows. */
  readonly stranger: Pair
}

export type Pair = Pick<Issued, 'chainPem' | 'keyPem'>

/** P-256 throughout: one CA that signs the server and the devices directly. */
export function writeMaterials(folder: string, deviceCount: number): void {
  const ca = createCa({ commonName: 'bench CA' })
  const server = issueServer(ca, { serverNames: [SERVER_NAME, TOKEN_NAME, WSS_NAME, 'localhost'], ips: ['127.0.0.1'] })
  const devices = Array.from({ length: deviceCount }, (_, at) => issueDevice(ca, { commonName: `device-${at}` }))
  const stranger = issueDevice(createCa({ commonName: 'another CA' }), { commonName: 'stranger' })
  const tokenKey = generateKeyPairSync('rsa', { modulusLength: 2_048 })
  const pairs = { server, stranger, ...Object.fromEntries(devices.map((device, at) => [deviceName(at), device])) }
  for (const [name, issued] of Object.entries(pairs)) {
    write(folder, `${name}.pem`, issued.chainPem)
    write(folder, `${name}.key`, issued.keyPem)
  }
  write(folder, 'ca.pem', ca.certPem)
  write(folder, 'bundle.pem', server.chainPem + server.keyPem)
  write(folder, 'token.pem', String(tokenKey.publicKey.export({ type: 'spki', format: 'pem' })))
  write(folder, 'devices', String(deviceCount))
}

export const deviceName = (at: number): string => `device-${at}`

export function readMaterials(folder: string): Materials {
  const text = (name: string) => readFileSync(join(folder, name), 'utf8')
  const pair = (name: string): Pair => ({ chainPem: text(`${name}.pem`), keyPem: text(`${name}.key`) })
  return {
    folder,
    caPem: text('ca.pem'),
    devices: Array.from({ length: Number(text('devices')) }, (_, at) => pair(deviceName(at))),
    stranger: pair('stranger'),
  }
}

export function write(folder: string, name: string, text: string): string {
  const file = join(folder, name)
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
  writeFileSync(file, text, { mode: 0o600 })
  return file
}
