// A reload changes by what those are judged who are here already. Who still holds stays; who does not is told why.
import test from 'ava'
import type { AuthOutcome } from '../../src/auth/authenticator.ts'
import { createAuthorizers } from '../../src/auth/authorizers.ts'
import { type BackendAuthOptions, backend } from '../../src/auth/backend.ts'
import type { CustomOptions } from '../../src/auth/custom.ts'
import { type SigV4Options, sigv4 } from '../../src/auth/sigv4.ts'
import { type X509Options, x509 } from '../../src/auth/x509.ts'
import { NO_METRICS } from '../../src/control/metrics.ts'
import { sha256 } from '../../src/registry/certificate-index.ts'
import { createRegistry } from '../../src/registry/registry.ts'
import { createCa, type Issued, issueDevice } from '../support/pki.ts'
import { KEYS, optionsOf, registryOf as registryOfKeys, upgrade } from '../support/sigv4.ts'
import { customOver, registryOf, SHAPES, startPeer, webhookEntry, YES } from './authorizer-peer.ts'
import { connectionOf } from './conformance.ts'

const SIGNAL = AbortSignal.timeout(60_000)
const said = (outcome: AuthOutcome): string => (outcome.kind === 'denied' ? outcome.code : 'ok')
const admitted = (outcome: AuthOutcome) => {
  if (outcome.kind === 'denied') throw new Error(outcome.detail)
  return outcome
}

const root = createCa({ commonName: 'Root' })
const next = createCa({ commonName: 'Next' })
const intermediate = createCa({ commonName: 'Intermediate', issuer: root })
const direct = issueDevice(root, { commonName: 'direct' })
const remote = issueDevice(intermediate, { commonName: 'remote' })

const DEFAULTS: X509Options = {
  mode: 'ca',
  registry: () => null,
  policies: [],
  hasCa: true,
  caCertificates: [root.cert],
  revocation: () => null,
  onExpired: 'deny',
  onMissing: 'deny',
}
const knows = ({ cert }: Pick<Issued, 'cert'>) => {
  const entry = { fingerprint: sha256(cert.raw), status: 'ACTIVE', der: cert.raw } as const
  const registry = createRegistry([{ ...entry, policies: [], things: [], exclusive: false }])
  return () => registry
}

/** Let in by `before`, and judged once more by each of `after` in turn. */
async function judged(
  device: Pick<Issued, 'cert'>,
  before: Partial<X509Options>,
  after: readonly (Partial<X509Options> | null)[],
  peer: { chain?: readonly Issued['cert'][]; verifyError?: string | null } = {},
): Promise<readonly string[]> {
  let inForce: X509Options | null = null
  const settings = (changes: Partial<X509Options>): X509Options => ({
    ...DEFAULTS,
    ...changes,
    inForce: () => inForce,
  })
  const { verifyError = null, chain = [device.cert] } = peer
  const presented = { leaf: device.cert, chain, verifyError }
  const first = settings(before)
  inForce = first
  let who = admitted(
    await x509(first).authenticate({ kind: 'x509', peer: presented }, connectionOf(), AbortSignal.abort()),
  )
  return after.map((changes) => {
    inForce = changes === null ? null : settings(changes)
    const outcome = who.rejudge()
    if (outcome.kind === 'authenticated') who = outcome
    return said(outcome)
  })
}

test('a CA that stays, with others or without, keeps its devices', async (t) => {
  const cas = (...all: Issued[]) => ({ caCertificates: all.map(({ cert }) => cert) })
  t.deepEqual(await judged(direct, cas(root), [cas(root, next), cas(next, root), cas(root)]), ['ok', 'ok', 'ok'])
})

test('a CA that goes takes the devices with it that it alone vouched for', async (t) => {
  const without = { caCertificates: [next.cert] }
  t.deepEqual(await judged(direct, {}, [without, {}]), ['ERR_CERTIFICATE_UNTRUSTED_CA', 'ok'])
  t.deepEqual(await judged(direct, {}, [{ hasCa: false, caCertificates: [] }]), ['ERR_CERTIFICATE_UNTRUSTED_CA'])
})

test('a path through what the device presented leads to the CA that is trusted now', async (t) => {
  const chain = [remote.cert, intermediate.cert]
  const trusts = (...all: Issued[]) => ({ caCertificates: all.map(({ cert }) => cert) })
  t.deepEqual(await judged(remote, trusts(root), [trusts(intermediate), trusts(root)], { chain }), ['ok', 'ok'])
  // Not presented, and not trusted: there is no path any more.
  t.deepEqual(await judged(remote, trusts(intermediate), [trusts(root)]), ['ERR_CERTIFICATE_UNTRUSTED_CA'])
})

test('a presented certificate that may not issue is no step on the path', async (t) => {
  // Its key signed the device's certificate; it is itself a device of the next CA.
  const impostor = issueDevice(next, { commonName: 'Intermediate', key: intermediate.key })
  const below = issueDevice({ ...intermediate, cert: impostor.cert }, { commonName: 'below' })
  const chain = [below.cert, impostor.cert]
  t.deepEqual(await judged(below, { caCertificates: [root.cert] }, [{ caCertificates: [next.cert] }], { chain }), [
    'ERR_CERTIFICATE_UNTRUSTED_CA',
  ])
})

test('a registry that admits by itself does not mind which CAs there are', async (t) => {
  const registry = knows(direct)
  const alone: Partial<X509Options> = { mode: 'registry', registry }
  t.deepEqual(
    await judged(direct, alone, [
      { ...alone, caCertificates: [next.cert] },
      { mode: 'registry-or-ca', registry, caCertificates: [next.cert] },
      { mode: 'registry-and-ca', registry, caCertificates: [next.cert] },
      { mode: 'registry-and-ca', registry },
    ]),
    ['ok', 'ok', 'ERR_CERTIFICATE_UNTRUSTED_CA', 'ok'],
  )
})

test('what was never proved to the TLS library is not taken as proved later', async (t) => {
  const registry = knows(direct)
  t.deepEqual(
    await judged(direct, { mode: 'registry', registry, hasCa: false, caCertificates: [] }, [{ mode: 'ca' }], {
      verifyError: 'UNABLE_TO_GET_ISSUER_CERT',
    }),
    ['ERR_CERTIFICATE_UNTRUSTED_CA'],
  )
})

test('another registry counts at once, and a domain that is gone ends it', async (t) => {
  const mine: Partial<X509Options> = { mode: 'registry', registry: knows(direct) }
  const others: Partial<X509Options> = { mode: 'registry', registry: knows(remote) }
  t.deepEqual(await judged(direct, mine, [others, mine, null]), [
    'ERR_CERTIFICATE_NOT_REGISTERED',
    'ok',
    'ERR_AUTHORIZATION_ENDED',
  ])
})

test('settings that cannot be looked at admit nobody', async (t) => {
  let broken = false
  const options: X509Options = {
    ...DEFAULTS,
    inForce: () => {
      if (broken) throw new Error('no domain')
      return options
    },
  }
  const peer = { leaf: direct.cert, chain: [direct.cert], verifyError: null }
  const who = admitted(await x509(options).authenticate({ kind: 'x509', peer }, connectionOf(), AbortSignal.abort()))
  broken = true
  t.is(said(who.rejudge()), 'ERR_IDENTITY_FAULT')
})

test('a session of a domain that leaves the judgement to the broker follows its policies and its end', async (t) => {
  let inForce: BackendAuthOptions | null = null
  const open: BackendAuthOptions = { policies: [], registry: () => null, inForce: () => inForce }
  inForce = open
  const who = admitted(await backend(open).authenticate({ kind: 'backend' }, connectionOf(), SIGNAL))
  inForce = { ...open, policies: ['devices'] }
  const narrowed = admitted(who.rejudge())
  t.not(narrowed.grants, who.grants)
  inForce = null
  t.is(said(who.rejudge()), 'ERR_AUTHORIZATION_ENDED')
  t.is(said(await narrowed.refresh(SIGNAL)), 'ERR_AUTHORIZATION_ENDED')
})

test('an access key is looked for where the domain looks now', async (t) => {
  let inForce: SigV4Options | null = null
  const options = optionsOf({ inForce: () => inForce })
  inForce = options
  const who = admitted(await sigv4(options).authenticate({ kind: 'sigv4', http: upgrade() }, connectionOf(), SIGNAL))
  t.is(said(who.rejudge()), 'ok')
  inForce = { ...options, registry: () => registryOfKeys(KEYS.slice(1)) }
  t.is(said(who.rejudge()), 'ERR_ACCESS_KEY_UNKNOWN')
  inForce = null
  t.is(said(who.rejudge()), 'ERR_AUTHORIZATION_ENDED')
})

test('an authorizer that the domain has no more ends its connections, without a call', async (t) => {
  const peer = await startPeer(t)
  const entry = webhookEntry(peer)
  const authorizers = createAuthorizers({ metrics: NO_METRICS })
  let inForce: CustomOptions | null = null
  const registry = registryOf(entry)
  const options: CustomOptions = {
    registry: () => registry,
    authorizers,
    allowed: [entry.name],
    defaultAuthorizer: entry.name,
    allowOverride: false,
    inForce: () => inForce,
  }
  inForce = options
  const who = admitted(await customOver(t, [entry], options).authenticate(SHAPES.mqtt, connectionOf(), SIGNAL))
  inForce = { ...options, defaultAuthorizer: null }
  t.is(said(who.rejudge()), 'ok')
  inForce = { ...options, defaultAuthorizer: null, allowed: [] }
  t.is(said(who.rejudge()), 'ERR_AUTHORIZATION_ENDED')
  inForce = null
  t.is(said(who.rejudge()), 'ERR_AUTHORIZATION_ENDED')
  t.is(peer.calls.length, 1)
})

test('the next question goes to the authorizer that counts now', async (t) => {
  const [first, second] = [await startPeer(t), await startPeer(t)]
  const authorizers = createAuthorizers({ metrics: NO_METRICS })
  let inForce: CustomOptions | null = null
  const over = (entry: ReturnType<typeof webhookEntry>): CustomOptions => ({
    registry: () => registryOf(entry),
    authorizers,
    allowed: [],
    defaultAuthorizer: entry.name,
    allowOverride: false,
    inForce: () => inForce,
  })
  const options = over(webhookEntry(first))
  inForce = options
  first.behavior = YES
  second.behavior = YES
  const entry = webhookEntry(first)
  const who = admitted(await customOver(t, [entry], options).authenticate(SHAPES.mqtt, connectionOf(), SIGNAL))
  inForce = over(webhookEntry(second, { digest: 'another' }))
  t.is(said(await who.refresh(SIGNAL)), 'ok')
  t.deepEqual([first.calls.length, second.calls.length], [1, 1])
  inForce = null
  t.is(said(await who.refresh(SIGNAL)), 'ERR_AUTHORIZATION_ENDED')
  t.deepEqual([first.calls.length, second.calls.length], [1, 1])
})
