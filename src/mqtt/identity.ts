import type { Principal } from '../auth/authenticator.ts'
import type { UpstreamIdentity } from '../backend/backend.ts'
import { ProxyError } from '../errors.ts'
import type { ClientIds } from './client-id.ts'
import type { Connect } from './connect.ts'
import type { ConnectChanges } from './rewrite.ts'

/**
 * What the broker is told in CONNECT in place of what the device said.
 *
 * A device that proved who it is by other means never has its user name and password passed on: SDKs put their
 * telemetry there (`?SDK=…`). With authentication by the broker they are the proof, and go on untouched.
 */
export function identityChanges(
  connect: Connect,
  ids: ClientIds,
  principal: Principal,
  domain: string,
  identity: UpstreamIdentity,
): Pick<ConnectChanges, 'clientId' | 'credentials'> {
  const fill = (template: string | null, hostile: RegExp): string | null =>
    template === null ? null : fillTemplate(template, hostile, ids.device, principal, domain)
  const clientId = ids.prefix + (fill(identity.clientId, NUL) ?? ids.device)
  return {
    clientId: clientId === connect.clientId ? undefined : clientId,
    credentials:
      principal.method === 'backend'
        ? undefined
        : { username: fill(identity.username, TOPIC_SPECIAL), password: fill(identity.password, NUL) },
  }
}

// Brokers put user names into topic patterns of their access lists (`%u`); a name with wildcards would open them all,
// as in Mosquitto's CVE-2017-7650.
const TOPIC_SPECIAL = /[+#/\0]/
const NUL = /\0/

function fillTemplate(
  template: string,
  hostile: RegExp,
  clientId: string,
  principal: Principal,
  domain: string,
): string {
  return template.replace(/\$\{([^}]*)\}/g, (_, name: string) => {
    const value =
      name === 'clientId'
        ? clientId
        : name === 'domain'
          ? domain
          : name === 'principal.id'
            ? principal.id
            : name.startsWith('principal.') && Object.hasOwn(principal.attributes, name.slice(10))
              ? principal.attributes[name.slice(10)]!
              : null
    if (value === null) throw new ProxyError('ERR_IDENTITY_FAULT', `this device has no value for \${${name}}`)
    if (hostile.test(value))
      throw new ProxyError('ERR_CLIENT_ID_INVALID', `\${${name}} holds a character that may not go there`)
    return value
  })
}
