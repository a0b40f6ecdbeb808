// What scanners see of the ports that devices connect to: sslscan, which tries each version, suite and fault by itself, and
// testssl, which is a second opinion with other code. Debian has both: apt-get install sslscan testssl.sh
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { POLICIES, type PolicyName } from '../../src/tls/policies.ts'
import { folderFor } from '../support/proxy.ts'
import { type Chaos, row } from './row.ts'

const exec = promisify(execFile)
const DEADLINE_MS = 400_000

interface Suite {
  readonly preferred: boolean
  readonly version: string
  /** As OpenSSL names it. */
  readonly name: string
}

interface Scan {
  readonly versions: readonly string[]
  readonly suites: readonly Suite[]
  readonly compression: boolean
  readonly renegotiation: boolean
  readonly heartbleed: boolean
}

const attributes = (tag: string): Readonly<Record<string, string>> =>
  Object.fromEntries([...tag.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name!, value!]))
const tagsOf = (xml: string, name: string) =>
  [...xml.matchAll(new RegExp(`<${name} [^>]*>`, 'g'))].map(([tag]) => attributes(tag))

async function sslscan(port: number): Promise<Scan> {
  const target = ['--sni-name=localhost', `127.0.0.1:${port}`]
  const { stdout } = await exec('sslscan', ['--xml=-', ...target], { timeout: DEADLINE_MS, maxBuffer: 2 ** 24 })
  return {
    versions: tagsOf(stdout, 'protocol')
      .filter(({ enabled }) => enabled === '1')
      .map(({ type, version }) => `${type} ${version}`),
    suites: tagsOf(stdout, 'cipher').map(({ status, sslversion, cipher }) => ({
      preferred: status === 'preferred',
      version: sslversion!,
      name: cipher!,
    })),
    compression: tagsOf(stdout, 'compression').some(({ supported }) => supported === '1'),
    renegotiation: tagsOf(stdout, 'renegotiation').some(({ supported }) => supported === '1'),
    heartbleed: tagsOf(stdout, 'heartbleed').some(({ vulnerable }) => vulnerable === '1'),
  }
}

/** Whether renegotiation would be the secure one of RFC 5746, as OpenSSL says at the end of a handshake of TLS 1.2. */
async function renegotiation(port: number): Promise<string> {
  const options = ['-connect', `127.0.0.1:${port}`, '-servername', 'localhost', '-tls1_2']
  const running = exec('openssl', ['s_client', ...options], { timeout: DEADLINE_MS })
  running.child.stdin?.end()
  const { stdout } = await running.catch((error: { stdout?: string }) => ({ stdout: error.stdout ?? '' }))
  return /Secure Renegotiation IS (.*)$/m.exec(stdout)?.[1] ?? stdout
}

interface Finding {
  readonly id: string
  readonly severity: string
  readonly finding: string
}

/** Versions, known faults and forward secrecy; the suites one by one are the other scanner's. */
async function testssl(chaos: Chaos, port: number): Promise<readonly Finding[]> {
  const file = join(folderFor(chaos.t), 'testssl.json')
  const what = ['--protocols', '--vulnerable', '--fs']
  const how = ['--quiet', '--warnings', 'off', '--color', '0', '--jsonfile', file, '--ip', '127.0.0.1']
  // Its exit code counts the findings.
  await exec('testssl', [...how, ...what, `localhost:${port}`], { timeout: DEADLINE_MS, maxBuffer: 2 ** 24 }).catch(
    () => {},
  )
  return JSON.parse(readFileSync(file, 'utf8')) as readonly Finding[]
}

const isAead = (suite: string): boolean => /GCM|CHACHA20|CCM/.test(suite)
/** sslscan writes those of TLS 1.3 as the standard does, OpenSSL's own way for the rest. */
const isGranted = (policy: PolicyName) => (suite: string) =>
  POLICIES[policy].suites.some((granted) => granted === suite)

/** What testssl looks for by name; each must say that there is none. */
const FAULTS = [
  'heartbleed',
  'CCS',
  'secure_client_renego',
  'CRIME_TLS',
  'POODLE_SSL',
  'SWEET32',
  'FREAK',
  'DROWN',
  'LOGJAM',
  'RC4',
] as const

const CASES: readonly {
  readonly policy: PolicyName
  readonly versions: readonly string[]
  readonly setting: string
}[] = [
  { policy: 'IoTSecurityPolicy_TLS13_1_2_2022_10', versions: ['tls 1.2', 'tls 1.3'], setting: '' },
  {
    policy: 'IoTSecurityPolicy_TLS13_1_3_2022_10',
    versions: ['tls 1.3'],
    setting: '    tlsPolicy: IoTSecurityPolicy_TLS13_1_3_2022_10',
  },
]

for (const { policy, versions, setting } of CASES) {
  row(
    {
      number: 6,
      part: setting === '' ? 'the default policy' : policy,
      title: 'TLS as scanners see it',
      required: 'only 1.2 and 1.3 with AEAD in the default policy, no client renegotiation, no compression',
      seconds: 60,
    },
    async (chaos) => {
      const { t } = chaos
      const { ports } = await chaos.start({ domain: setting })
      const suites = new Set<string>()
      for (const port of [ports.mqtt, ports.https, ports.web]) {
        const scan = await sslscan(port)
        t.deepEqual(scan.versions, versions)
        t.like(scan, { compression: false, renegotiation: false, heartbleed: false })
        t.true(scan.suites.length > 0)
        t.deepEqual(
          scan.suites.filter(({ name }) => !isGranted(policy)(name)),
          [],
          'what the policy does not grant',
        )
        // Whoever can do better gets it.
        t.deepEqual(
          scan.suites.filter(({ preferred, name }) => preferred && !isAead(name)),
          [],
        )
        for (const { name } of scan.suites) suites.add(name)
      }
      const findings = await testssl(chaos, ports.mqtt)
      const found = new Map(findings.map((finding) => [finding.id, finding]))
      const finding = (id: string) => `${id}: ${found.get(id)?.severity} ${found.get(id)?.finding}`
      const secure = versions.includes('tls 1.2') ? await renegotiation(ports.mqtt) : 'supported'
      t.is(secure, 'supported')
      // What only TLS 1.2 could have is not even asked where there is none.
      const asked = FAULTS.filter((id) => found.has(id) || versions.includes('tls 1.2'))
      t.true(asked.length > 6)
      t.deepEqual(asked.filter((id) => found.get(id)?.severity !== 'OK').map(finding), [])
      const old = ['SSLv2', 'SSLv3', 'TLS1', 'TLS1_1']
      t.deepEqual(old.filter((id) => !/not offered/.test(found.get(id)?.finding ?? '')).map(finding), [])
      const grave = findings.filter(({ severity }) => ['HIGH', 'CRITICAL', 'FATAL'].includes(severity))
      t.deepEqual(
        grave.filter(({ id }) => id !== 'scanProblem'),
        [],
      )

      const weaker = [...suites].filter((suite) => !isAead(suite))
      if (setting !== '') t.deepEqual(weaker, [])
      else if (weaker.length > 0) {
        chaos.note(`not AEAD alone: the default policy is that of AWS IoT Core, with ${weaker.length} suites of CBC`)
      }
      return {
        injected: `sslscan at 3 ports, testssl at one, ${findings.length} findings`,
        seen: `${versions.join(' and ')}; ${suites.size} suites, ${weaker.length} of them not AEAD; AEAD preferred; no renegotiation, no compression`,
      }
    },
  )
}
