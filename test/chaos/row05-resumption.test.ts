// A device makes a session at one domain and takes it to the same or the other, before and after all that may change in
// between. Nginx, Apache and Cloudflare have let it in there as whom it was elsewhere (CVE-2025-23419, CVE-2025-23048).
import { randomBytes } from 'node:crypto'
import { createCa } from '../../src/cli/pki.ts'
import { RotatingSecret } from '../../src/store/ticket-secret.ts'
import { TLS_RUNTIME } from '../../src/tls/policies.ts'
import { TICKET_FACTS } from '../../src/tls/tickets.ts'
import { OPENSSL } from '../support/openssl.ts'
import { CA_MODE, judged, processOf, visit, withTickets } from '../tls/resumption-harness.ts'
import { row } from './row.ts'

const { keepsChain } = TICKET_FACTS[TLS_RUNTIME]
const NAMES = ['a.example', 'b.example'] as const
const elsewhere = createCa({ commonName: 'elsewhere' })
const DAY_MS = 86_400_000

const domainsOf = (trust: object) => NAMES.map((name) => withTickets({ ...CA_MODE, ...trust, serverNames: [name] }))

interface Situation {
  readonly what: string
  /** Whether a session may go on afterwards under its own name. */
  readonly mayResume: boolean
  /** What is said of the device at the second visit. */
  readonly judgement: RegExp
}

// biome-ignore format: a table is read down its columns
const SITUATIONS: readonly Situation[] = [
  { what: 'nothing',       mayResume: keepsChain, judgement: /^device-1$/ },
  { what: 'revoked',       mayResume: keepsChain, judgement: /^ERR_CERTIFICATE_REVOKED$/ },
  { what: 'CA removed',    mayResume: false,      judgement: /^ERR_CERTIFICATE_/ },
  { what: 'restart',       mayResume: false,      judgement: /^device-1$/ },
  { what: 'keys replaced', mayResume: false,      judgement: /^device-1$/ },
]

row(
  {
    number: 5,
    title: 'resumption matrix',
    required: 'B never sees the identity of A; resumption under the same name works',
    seconds: 30,
  },
  async ({ t }) => {
    if (OPENSSL === null) throw new Error('no openssl binary on this machine')
    let cases = 0
    let resumed = 0
    for (const version of ['1_2', '1_3']) {
      for (const { what, mayResume, judgement } of SITUATIONS) {
        for (const from of NAMES) {
          for (const to of NAMES) {
            const title = `TLS ${version.replace('_', '.')}, ${what}, ${from} to ${to}`
            const secret = new RotatingSecret({ maxAgeMs: DAY_MS })
            const first = processOf({ secret, domains: domainsOf({}) })
            const later =
              what === 'CA removed'
                ? processOf({ secret, domains: domainsOf({ caPems: [elsewhere.certPem] }) })
                : what === 'restart'
                  ? processOf({ domains: domainsOf({}) })
                  : first
            const before = () => {
              if (what === 'keys replaced') secret.replace(randomBytes(32))
            }
            const [made, second] = await visit(version, first(from), [{ ...later(to), before }])
            t.false(made.secured.resumed, title)
            t.is(await judged(made), 'device-1', title)
            t.is(second!.secured.resumed, from === to && mayResume, title)
            const trust = what === 'CA removed' ? { caCertificates: [elsewhere.cert] } : {}
            const status = what === 'revoked' ? 'REVOKED' : undefined
            t.regex(String(await judged(second!, trust, status)), judgement, title)
            cases++
            if (second!.secured.resumed) resumed++
          }
        }
      }
    }
    return {
      injected: `${cases} cases: TLS 1.2 and 1.3 × two domains each way × ${SITUATIONS.map(({ what }) => what).join(', ')}; openssl s_client`,
      seen: `${resumed} resumed, all under their own name and judged anew; at the other domain, after a restart, new keys or another CA: 0`,
    }
  },
)
