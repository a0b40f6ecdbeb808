import type { Settings } from '../config/schema.ts'
import type { FailureCode } from '../errors.ts'
import type { Action, ArnHead } from '../policy/permit.ts'
import type { Domain } from '../tls/domains.ts'
import { DENIALS } from './denials.ts'
import { rulesOf, type SessionRules } from './limits.ts'

/** What one domain says about its sessions. */
export interface DomainRules {
  readonly arn: ArnHead
  readonly rules: SessionRules
  /** What policies deny is decided, counted and told, and passes. */
  readonly reportOnly: boolean
  readonly clientId: { readonly bind: 'policy' | 'thing' | 'principal'; readonly prefix: string }
  /** A live connection ends with its certificate. */
  readonly cutAtExpiry: boolean
}

/** Why a session may not be, as an answer. */
export interface Denial {
  readonly code: FailureCode
  readonly detail: string
  /** Null where no policy was asked, so that nothing of it can be let pass for a report. */
  readonly action: Action | null
  readonly resource: string | null
}

/**
 * Rules by domain. A limit is the domain's own, else the global one of that name, else that of the profile: the domain's
 * where it has one, else the global.
 */
export function domainRules(settings: Settings): (domain: Pick<Domain, 'name'>) => DomainRules {
  const byName = new Map<string, DomainRules>()
  for (const { serverNames, aws, policy, denials, clientId, clientTrust, limits } of settings.domains) {
    const told = denials === null ? {} : { denials: DENIALS[denials] }
    byName.set(serverNames[0]!, {
      arn: {
        partition: aws.partition ?? settings.aws.partition,
        region: aws.region ?? settings.aws.region,
        accountId: aws.accountId ?? settings.aws.accountId,
      },
      rules: rulesOf(limits.profile ?? settings.limits.profile, settings.limits.own, limits.own, told),
      reportOnly: policy === 'report',
      clientId,
      cutAtExpiry: clientTrust.cutAtExpiry,
    })
  }
  return ({ name }) => {
    const rules = byName.get(name)
    if (rules === undefined) throw new Error(`no rules for the domain ${name}`)
    return rules
  }
}
