import { randomBytes, X509Certificate } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { browserPage } from './browser-page.ts'
import { createCa, type Issued, type Issuer, issueDevice, issueServer, loadCa } from './pki.ts'

/** First line of the `.gitignore` in a folder that this program made, and may therefore complete and renew. */
const MARK = '# Made by brokergate. Holds development keys: keep it out of version control.'

/** A certificate with less than this left is renewed, so that a day's work does not end in the middle. */
const RENEW_BEFORE_MS = 86_400_000

export type Starter =
  | {
      readonly kind: 'ready'
      readonly configFile: string
      /** Files made or renewed just now, relative to the folder; empty when everything was there. */
      readonly written: readonly string[]
    }
  | { readonly kind: 'foreign'; readonly reason: string }

/**
 * Makes a folder to start from: a commented configuration, a development PKI, a registry that knows its one device and
 * one access key, and a page for a first look from a browser. In a folder of its own it adds what is missing and renews what has expired; what an operator has written
 * is never touched. Folders are 0700, keys 0600.
 */
export function writeStarter(dir: string): Starter {
  const configFile = join(dir, 'brokergate.yaml')
  if (existsSync(dir) && !isOurs(dir) && readdirSync(dir).length > 0) {
    return { kind: 'foreign', reason: `${dir} is not empty and was not made by brokergate` }
  }
  for (const folder of [dir, join(dir, 'pki'), join(dir, 'registry'), join(dir, 'var')]) {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    chmodSync(folder, 0o700)
  }
  const written: string[] = []
  const put = (name: string, text: string): void => {
    replaceFile(join(dir, name), text, /\.(?:key|secret)$/.test(name) ? 0o600 : 0o644)
    written.push(name)
  }
  const putOnce = (name: string, text: string): void => {
    if (!existsSync(join(dir, name))) put(name, text)
  }
  putOnce('.gitignore', `${MARK}\n*\n`)
  writePki(dir, put)
  putOnce('pki/access-key.secret', `${randomBytes(30).toString('base64url')}\n`)
  const page = browserPage()
  if (page !== null) putOnce('browser.html', page)
  putOnce('registry/registry.yaml', REGISTRY)
  putOnce('brokergate.yaml', configuration())
  return { kind: 'ready', configFile, written }
}

function isOurs(dir: string): boolean {
  const file = join(dir, '.gitignore')
  return existsSync(file) && readFileSync(file, 'utf8').startsWith(MARK)
}

/** Under another name first: a running process that reads it sees the old file or the new one, never half of it. */
function replaceFile(file: string, text: string, mode: number): void {
  const next = `${file}.${process.pid}.new`
  writeFileSync(next, text, { mode })
  chmodSync(next, mode)
  renameSync(next, file)
}

function writePki(dir: string, put: (name: string, text: string) => void): void {
  const putBoth = (name: string, issued: Issued): void => {
    put(`pki/${name}.key`, issued.keyPem)
    put(`pki/${name}.pem`, issued.chainPem)
  }
  const current = readCa(dir)
  const ca = current ?? createCa({ commonName: 'brokergate development CA' })
  if (current === null) {
    put('pki/ca.key', ca.keyPem)
    put('pki/ca.pem', ca.certPem)
  }
  if (!isCurrent(dir, 'server', ca)) {
    putBoth('server', issueServer(ca, { serverNames: ['localhost'], ips: ['127.0.0.1', '::1'] }))
  }
  if (!isCurrent(dir, 'device', ca)) putBoth('device', issueDevice(ca, { commonName: 'device' }))
}

function readCa(dir: string): Issuer | null {
  try {
    const ca = loadCa(readFileSync(join(dir, 'pki/ca.pem'), 'utf8'), readFileSync(join(dir, 'pki/ca.key'), 'utf8'))
    return hasTimeLeft(ca.cert) ? ca : null
  } catch {
    // Missing or damaged: a new one, and with it new certificates below.
    return null
  }
}

function isCurrent(dir: string, name: string, ca: Issuer): boolean {
  try {
    const cert = new X509Certificate(readFileSync(join(dir, `pki/${name}.pem`)))
    return hasTimeLeft(cert) && cert.verify(ca.cert.publicKey) && existsSync(join(dir, `pki/${name}.key`))
  } catch {
    return false
  }
}

function hasTimeLeft(cert: X509Certificate): boolean {
  return Date.parse(cert.validTo) - Date.now() > RENEW_BEFORE_MS
}

const REGISTRY = `# The devices that may connect. Every *.yaml in this folder is read.
certificates:
  # ACTIVE may connect. INACTIVE and REVOKED may not. The file is relative to this one.
  - { file: ../pki/device.pem, status: ACTIVE, policies: [ devices ] }

# For browsers and HTTPS: requests signed with Signature Version 4. \`brokergate presign -c brokergate.yaml\` signs with it.
accessKeys:
  - { id: DEVELOPMENT, secret: { file: ../pki/access-key.secret }, policies: [ devices ] }

# What they may do: AWS IoT policy documents. No policy, no permission. This one allows everything.
policies:
  devices:
    Version: "2012-10-17"
    Statement:
      - { Effect: Allow, Action: "iot:*", Resource: "*" }
`

function configuration(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
  const hosts = ['127.0.0.1', ...(addresses.some(({ address }) => address === '::1') ? ['[::1]'] : [])]
  const listeners = hosts.flatMap((host) => [
    `  - { bind: "${host}:8883" }`,
    `  - { bind: "${host}:8443" }`,
    `  - { bind: "${host}:10443", as: 443 }`,
  ])
  return `# A configuration to start from. Paths are relative to this file. \`brokergate check -c brokergate.yaml\` says what is
# wrong with it; \`brokergate schema\` prints every setting with its meaning.

# Only this machine can connect. For a fleet: { bind: "[::]:8883" }, and the other two the same way.
# The port number says which rules apply: 8883 MQTT, 8443 HTTPS, 443 what ALPN asks for. Port 443 itself may be
# forbidden to an ordinary user, so another port is served \`as\` 443.
listeners:
${listeners.join('\n')}

# One entry per server name. Devices must ask for it by name (SNI).
domains:
  - serverNames: [ localhost ]
    certificates:
      - { cert: pki/server.pem, key: pki/server.key }
    # Which device certificates are trusted: those that the registry has as ACTIVE.
    registry: main
    # clientTrust: { mode: ca, ca: [ pki/ca.pem ] }      # or: all that this CA has signed
    backend: main

backends:
  # A small broker inside this process, for trying things. In front of your own broker:
  # main: { kind: tcp, servers: [ { address: "127.0.0.1:1883" } ] }
  main: { kind: embedded }

registries:
  main: { path: registry/, state: var/registry/ }

# metrics: { bind: "127.0.0.1:9883" }      # /metrics /healthz /readyz
# log: { level: info, format: auto }
`
}
