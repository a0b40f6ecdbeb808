import test from 'ava'
import { createDomains } from '../../src/tls/domains.ts'
import { contextOptions, DEFAULT_POLICY, POLICIES, POLICY_NAMES, TLS_RUNTIME } from '../../src/tls/policies.ts'
import { NO_OPENSSL, OPENSSL, sClient } from '../support/openssl.ts'
import { domainOptions, ecdsa, listen, pair, rsa } from './server.ts'

const EVERY = [...new Set(POLICY_NAMES.flatMap((name) => [...POLICIES[name].suites]))]
/** In no policy, but in some TLS library. */
const STRANGERS = ['ECDHE-RSA-CHACHA20-POLY1305', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'DHE-RSA-AES128-GCM-SHA256']
const IN_BORINGSSL = EVERY.filter((suite) => !/^AES(128|256)-SHA256$|AES256-SHA384$|^DHE-/.test(suite))
const lower = (suites: readonly string[]) => suites.map((suite) => suite.toLowerCase())

test('six policies of as many suites as the table has', (t) => {
  const counts = POLICY_NAMES.map((name) => `${name.slice(18)} ${POLICIES[name].suites.length}`)
  t.deepEqual(counts, [
    'TLS13_1_3_2022_10 3',
    'TLS13_1_2_2022_10 21',
    'TLS12_1_2_2022_10 18',
    'TLS12_1_0_2016_01 18',
    'TLS12_1_0_2015_01 19',
    'TLS13_1_2_2022_01 16',
  ])
})

test('an unknown policy is refused by name, also a hostile one', (t) => {
  for (const name of ['', 'TLS13', 'constructor', '__proto__', DEFAULT_POLICY.toLowerCase()]) {
    t.is(contextOptions(name).kind, 'refused', name)
  }
})

test('what BoringSSL lacks is told as missing and not passed', (t) => {
  const options = contextOptions('IoTSecurityPolicy_TLS12_1_0_2015_01', 'boringssl', lower(IN_BORINGSSL))
  if (options.kind !== 'usable') return t.fail()
  t.deepEqual([...options.missing].sort(), [
    'AES128-SHA256',
    'AES256-SHA256',
    'DHE-RSA-AES256-SHA',
    'ECDHE-ECDSA-AES256-SHA384',
    'ECDHE-RSA-AES256-SHA384',
  ])
  for (const suite of options.missing) t.false(options.ciphers?.split(':').includes(suite))
  t.false(options.dhe)
})

test('a policy that would be laxer on BoringSSL than its table is refused there, and served on OpenSSL', (t) => {
  const refused = contextOptions('IoTSecurityPolicy_TLS13_1_2_2022_01', 'boringssl', lower(IN_BORINGSSL))
  t.is(refused.kind, 'refused')
  if (refused.kind === 'refused') t.regex(refused.detail, /TLS_CHACHA20_POLY1305_SHA256/)
  const usable = contextOptions('IoTSecurityPolicy_TLS13_1_2_2022_01', 'openssl', lower(EVERY))
  t.is(usable.kind, 'usable')
  if (usable.kind === 'usable') t.false(usable.ciphers?.includes('CHACHA20'))
})

test('AES128-SHA256 of 2016_01 belongs to port 443 alone and is therefore offered on none', (t) => {
  const options = contextOptions('IoTSecurityPolicy_TLS12_1_0_2016_01', 'openssl', lower(EVERY))
  if (options.kind !== 'usable') return t.fail()
  t.deepEqual(options.missing, ['AES128-SHA256'])
})

test('on this runtime only what the library lacks is missing', (t) => {
  for (const name of POLICY_NAMES) {
    const options = contextOptions(name)
    if (options.kind === 'refused') {
      t.is(`${TLS_RUNTIME} ${name}`, 'boringssl IoTSecurityPolicy_TLS13_1_2_2022_01')
      continue
    }
    const lacked = TLS_RUNTIME === 'boringssl' ? EVERY.filter((suite) => !IN_BORINGSSL.includes(suite)) : []
    const only443: readonly string[] = POLICIES[name].only443
    for (const suite of options.missing) t.true(lacked.includes(suite) || only443.includes(suite), `${name} ${suite}`)
  }
})

const real = OPENSSL ? test : test.skip
const reason = OPENSSL ? '' : ` (${NO_OPENSSL})`

for (const name of POLICY_NAMES) {
  const options = contextOptions(name)
  if (options.kind === 'refused') continue
  real(`${name}: each suite negotiates or is missing, and no other does${reason}`, async (t) => {
    const both = [pair(ecdsa, 'ecdsa'), pair(rsa, 'rsa')]
    const domains = createDomains({ generation: 1, domains: [domainOptions({ tlsPolicy: name, certificates: both })] })
    const server = await listen({ context: domains.find('a.example')!.context(false) })
    try {
      const wrong: string[] = []
      const work = [...EVERY, ...STRANGERS].map((suite) => async () => {
        const limit = suite.startsWith('TLS_')
          ? ['-tls1_3', '-ciphersuites', suite]
          : ['-tls1_2', '-cipher', `${suite}:@SECLEVEL=0`]
        const { output } = await sClient({ port: server.port, args: limit, until: /UP\n|Cipher is \(NONE\)/ })
        const granted = (POLICIES[name].suites as readonly string[]).includes(suite) && !options.missing.includes(suite)
        const got = output.includes(`Cipher is ${suite}\n`)
        if (granted !== got) wrong.push(`${suite}: ${got ? 'negotiated' : output.slice(0, 400)}`)
      })
      await Promise.all(
        [0, 1, 2, 3].map(async () => {
          for (let job = work.pop(); job; job = work.pop()) await job()
        }),
      )
      t.deepEqual(wrong, [])
    } finally {
      await server.close()
    }
  })

  real(`${name}: versions outside ${options.minVersion}–${options.maxVersion} are refused${reason}`, async (t) => {
    const domains = createDomains({ generation: 1, domains: [domainOptions({ tlsPolicy: name })] })
    const server = await listen({ context: domains.find('a.example')!.context(false) })
    try {
      for (const [flag, version] of [
        ['-tls1', 'TLSv1'],
        ['-tls1_1', 'TLSv1.1'],
        ['-tls1_2', 'TLSv1.2'],
        ['-tls1_3', 'TLSv1.3'],
      ] as const) {
        const { output } = await sClient({
          port: server.port,
          args: [flag, '-cipher', 'ALL:@SECLEVEL=0'],
          until: /UP\n|Cipher is \(NONE\)/,
        })
        t.is(
          /UP\n/.test(output),
          version >= options.minVersion && version <= options.maxVersion,
          `${version}\n${output}`,
        )
      }
    } finally {
      await server.close()
    }
  })
}
