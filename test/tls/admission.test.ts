import test from 'ava'
import {
  ADMISSIONS,
  type Admitting,
  type ApplicationProtocol,
  type AuthenticationType,
  admit,
  COMBINATIONS,
  explicitAdmissions,
  wantsCertificate,
} from '../../src/tls/admission.ts'

const DEFAULT: Admitting = { byAlpn: true, endpointType: 'data', admissions: ADMISSIONS }
const explicit = (auth: AuthenticationType, protocol: ApplicationProtocol): Admitting => ({
  byAlpn: false,
  endpointType: 'data',
  admissions: explicitAdmissions(auth, protocol),
})

/** `D mqtt/x509 → x-amzn-mqtt-ca`, or the code of the refusal. */
function told(domain: Admitting, port: number, offered: readonly string[]): string {
  const admitted = admit(domain, port, offered)
  if (admitted.kind === 'refused') return admitted.code
  const rows = admitted.admissions.map((row) => `${row.mode} ${row.protocol}/${row.auth}`)
  return `${rows.join(', ')} → ${admitted.alpn ?? 'none'}`
}

const leaves = test.macro({
  exec(t, port: number, offered: string[], expected: string) {
    t.is(told(DEFAULT, port, offered), expected)
  },
  title: (_, port: number, offered: string[], expected: string) => `port ${port}, ALPN [${offered}]: ${expected}`,
})

const HTTP = 'A wss/sigv4, B wss/custom, F https/sigv4, I https/custom'

test(leaves, 8883, [], 'D mqtt/x509 → none')
test(leaves, 8883, ['x-amzn-mqtt-ca'], 'D mqtt/x509 → x-amzn-mqtt-ca')
test(leaves, 8883, ['h2', 'x-amzn-mqtt-ca'], 'D mqtt/x509 → x-amzn-mqtt-ca')
test(leaves, 8883, ['mqtt'], 'D mqtt/x509 → none')
test(leaves, 8883, ['h2'], 'D mqtt/x509 → none')
test(leaves, 8443, [], 'H https/x509 → none')
test(leaves, 8443, ['x-amzn-http-ca'], 'H https/x509 → x-amzn-http-ca')
test(leaves, 8443, ['http/1.1'], 'H https/x509 → http/1.1')
test(leaves, 8443, ['http/1.1', 'x-amzn-http-ca'], 'H https/x509 → x-amzn-http-ca')
test(leaves, 8443, ['h2', 'http/1.1'], 'H https/x509 → http/1.1')
test(leaves, 8443, ['h2'], 'H https/x509 → none')
test(leaves, 443, ['x-amzn-mqtt-ca'], 'C mqtt/x509 → x-amzn-mqtt-ca')
test(leaves, 443, ['x-amzn-http-ca'], 'G https/x509 → x-amzn-http-ca')
test(leaves, 443, ['mqtt'], 'E mqtt/custom → mqtt')
test(leaves, 443, [], `${HTTP} → none`)
test(leaves, 443, ['http/1.1'], `${HTTP} → http/1.1`)
test(leaves, 443, ['h2', 'http/1.1'], `${HTTP} → http/1.1`)
test(leaves, 443, ['h2'], 'ERR_ALPN_UNSUPPORTED')
test(leaves, 443, ['X-AMZN-MQTT-CA'], 'ERR_ALPN_UNSUPPORTED')
test(leaves, 443, [''], 'ERR_ALPN_UNSUPPORTED')
test(leaves, 443, ['__proto__', 'constructor'], 'ERR_ALPN_UNSUPPORTED')
test(leaves, 1883, [], 'ERR_PORT_UNSERVED')
test(leaves, 80, ['http/1.1'], 'ERR_PORT_UNSERVED')

test('of several names we know, the server’s order C, G, E decides [RFC 7301 §3.2]', (t) => {
  t.is(told(DEFAULT, 443, ['mqtt', 'x-amzn-http-ca', 'x-amzn-mqtt-ca']), 'C mqtt/x509 → x-amzn-mqtt-ca')
  t.is(told(DEFAULT, 443, ['mqtt', 'x-amzn-http-ca']), 'G https/x509 → x-amzn-http-ca')
  t.is(told(DEFAULT, 443, ['http/1.1', 'mqtt']), 'E mqtt/custom → mqtt')
})

test('the name selected is always one of those offered, whatever the domain, port and offer', (t) => {
  const names = ['x-amzn-mqtt-ca', 'x-amzn-http-ca', 'mqtt', 'http/1.1', 'h2']
  const domains = [DEFAULT]
  for (const auth of Object.keys(COMBINATIONS) as AuthenticationType[]) {
    for (const protocol of COMBINATIONS[auth]) if (auth !== 'DEFAULT') domains.push(explicit(auth, protocol))
  }
  for (let mask = 0; mask < 1 << names.length; mask += 1) {
    const offered = names.filter((_, bit) => mask & (1 << bit))
    for (const domain of domains) {
      for (const port of [443, 8443, 8883]) {
        const admitted = admit(domain, port, offered)
        if (admitted.kind === 'refused') continue
        t.true(admitted.admissions.length > 0)
        t.true(admitted.alpn === null || offered.includes(admitted.alpn))
        if (port === 443 && offered.length > 0) t.not(admitted.alpn, null)
      }
    }
  }
})

test('the nine rows are the specification’s letters, once each', (t) => {
  t.deepEqual(ADMISSIONS.map((row) => row.mode).sort(), ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I'])
})

// Wire specification §1.2, cell by cell; BACKEND is ours.
const PROTOCOLS: ApplicationProtocol[] = ['SECURE_MQTT', 'MQTT_WSS', 'HTTPS', 'DEFAULT']
const CELLS: Record<AuthenticationType, string> = {
  AWS_X509: 'yes no yes no',
  CUSTOM_AUTH_X509: 'yes no yes no',
  AWS_SIGV4: 'no yes yes no',
  CUSTOM_AUTH: 'yes yes yes no',
  DEFAULT: 'no no no yes',
  BACKEND: 'yes no no no',
}
for (const [auth, cells] of Object.entries(CELLS) as [AuthenticationType, string][]) {
  test(`${auth} goes with ${PROTOCOLS}: ${cells}`, (t) => {
    t.is(PROTOCOLS.map((protocol) => (COMBINATIONS[auth].includes(protocol) ? 'yes' : 'no')).join(' '), cells)
    for (const protocol of PROTOCOLS) {
      const possible = COMBINATIONS[auth].includes(protocol) && auth !== 'DEFAULT'
      t.is(explicitAdmissions(auth, protocol).length > 0, possible, protocol)
    }
  })
}

const fixed = test.macro({
  exec(t, auth: AuthenticationType, protocol: ApplicationProtocol, port: number, offered: string[], expected: string) {
    t.is(told(explicit(auth, protocol), port, offered), expected)
  },
  title: (_, auth, protocol, port, offered, expected) =>
    `${auth}/${protocol}, port ${port}, ALPN [${offered}]: ${expected}`,
})

const X509 = 'AWS_X509/SECURE_MQTT mqtt/x509'
test(fixed, 'AWS_X509', 'SECURE_MQTT', 8883, [], `${X509} → none`)
test(fixed, 'AWS_X509', 'SECURE_MQTT', 8883, ['x-amzn-mqtt-ca'], `${X509} → x-amzn-mqtt-ca`)
test(fixed, 'AWS_X509', 'SECURE_MQTT', 8883, ['h2'], `${X509} → none`)
test(fixed, 'AWS_X509', 'SECURE_MQTT', 443, [], `${X509} → none`)
test(fixed, 'AWS_X509', 'SECURE_MQTT', 443, ['mqtt'], `${X509} → mqtt`)
test(fixed, 'AWS_X509', 'SECURE_MQTT', 443, ['http/1.1'], 'ERR_ALPN_UNSUPPORTED')
test(fixed, 'AWS_X509', 'SECURE_MQTT', 8443, [], 'ERR_PORT_UNSERVED')
test(fixed, 'AWS_X509', 'HTTPS', 8443, ['h2'], 'AWS_X509/HTTPS https/x509 → none')
test(fixed, 'AWS_X509', 'HTTPS', 443, ['h2', 'http/1.1'], 'AWS_X509/HTTPS https/x509 → http/1.1')
test(fixed, 'AWS_X509', 'HTTPS', 443, ['mqtt'], 'ERR_ALPN_UNSUPPORTED')
test(fixed, 'AWS_X509', 'HTTPS', 8883, [], 'ERR_PORT_UNSERVED')
test(fixed, 'CUSTOM_AUTH', 'MQTT_WSS', 443, ['http/1.1'], 'CUSTOM_AUTH/MQTT_WSS wss/custom → http/1.1')
test(fixed, 'CUSTOM_AUTH', 'MQTT_WSS', 443, ['mqtt'], 'ERR_ALPN_UNSUPPORTED')
test(fixed, 'AWS_SIGV4', 'MQTT_WSS', 8883, [], 'ERR_PORT_UNSERVED')
test(fixed, 'CUSTOM_AUTH_X509', 'SECURE_MQTT', 443, [], 'CUSTOM_AUTH_X509/SECURE_MQTT mqtt/custom-x509 → none')
test(fixed, 'BACKEND', 'SECURE_MQTT', 8883, [], 'BACKEND/SECURE_MQTT mqtt/backend → none')
test(fixed, 'BACKEND', 'SECURE_MQTT', 443, ['mqtt'], 'BACKEND/SECURE_MQTT mqtt/backend → mqtt')

test('a client certificate is asked for only where X.509 is still possible', (t) => {
  const wants = (domain: Admitting, port: number, offered: string[]) => {
    const admitted = admit(domain, port, offered)
    return admitted.kind === 'admitted' && wantsCertificate(admitted.admissions)
  }
  t.true(wants(DEFAULT, 8883, []))
  t.true(wants(DEFAULT, 8443, []))
  t.true(wants(DEFAULT, 443, ['x-amzn-mqtt-ca']))
  t.false(wants(DEFAULT, 443, ['mqtt']))
  t.false(wants(DEFAULT, 443, []))
  t.true(wants(explicit('CUSTOM_AUTH_X509', 'HTTPS'), 443, []))
  t.false(wants(explicit('BACKEND', 'SECURE_MQTT'), 8883, []))
})

test('an endpoint for jobs does not answer x-amzn-http-ca on 443, and another name of the offer may', (t) => {
  const jobs: Admitting = { ...DEFAULT, endpointType: 'jobs' }
  t.is(told(jobs, 443, ['x-amzn-http-ca']), 'ERR_ALPN_UNSUPPORTED')
  t.is(told(jobs, 443, ['x-amzn-http-ca', 'http/1.1']), `${HTTP} → http/1.1`)
  t.is(told(jobs, 443, []), `${HTTP} → none`)
  t.is(told(jobs, 8443, ['x-amzn-http-ca']), 'H https/x509 → x-amzn-http-ca')
  t.is(
    told({ ...explicit('AWS_X509', 'HTTPS'), endpointType: 'jobs' }, 443, ['x-amzn-http-ca']),
    'ERR_ALPN_UNSUPPORTED',
  )
})
