import type { Thing } from '../registry/entries.ts'
import type { ArnHead, Variables } from './permit.ts'

/** Attributes of a name, as AWS IoT calls them: developer guide, "X.509 certificate policy variables". */
export const NAME_ATTRIBUTES = [
  'DistinguishedNameQualifier',
  'Country',
  'Organization',
  'OrganizationalUnit',
  'State',
  'CommonName',
  'SerialNumber',
  'Title',
  'Surname',
  'GivenName',
  'Initials',
  'Pseudonym',
  'GenerationQualifier',
] as const

export const ALTERNATIVE_NAMES = [
  'RFC822Name',
  'DNSName',
  'DirectoryName',
  'UniformResourceIdentifier',
  'IPAddress',
] as const

/** Fields of a certificate that may have several values: `.1` is the second, `.List` is all. */
const LISTED = ['Subject', 'Issuer'].flatMap((side) => [
  ...NAME_ATTRIBUTES.map((name) => `iot:Certificate.${side}.${name}`),
  ...ALTERNATIVE_NAMES.map((name) => `iot:Certificate.${side}.AlternativeName.${name}`),
])

/** Known for the CONNECT itself only: AWS IoT developer guide, "Using connectAttributes". */
export const CONNECT_ONLY: ReadonlySet<string> = new Set(['iot:ConnectAttributes', 'iot:LastWillTopic'])

/** They go on while a session lasts, so they are looked at with each decision. In whole seconds. */
export const CURRENT_TIME = 'aws:CurrentTime'
export const EPOCH_TIME = 'aws:EpochTime'

const FIXED = [
  'iot:ClientId',
  'aws:SourceIp',
  'iot:DomainName',
  'iot:Connection.Thing.ThingName',
  'iot:Connection.Thing.ThingTypeName',
  'iot:Connection.Thing.IsAttached',
  'iot:Certificate.SerialNumber',
  'iot:Certificate.AvailableKeys',
  CURRENT_TIME,
  EPOCH_TIME,
  ...CONNECT_ONLY,
]

const SPELLINGS: ReadonlyMap<string, string> = new Map([...FIXED, ...LISTED].map((name) => [name.toLowerCase(), name]))
const ATTRIBUTE = 'iot:Connection.Thing.Attributes['

/**
 * Names of keys do not depend on case (IAM user guide, "Condition"); a `Deny` on `aws:sourceip` must not be lost. The name
 * of a thing's attribute does; names that are not known stay as they are.
 */
export function canonicalName(name: string): string {
  const lower = name.toLowerCase()
  const known = SPELLINGS.get(lower)
  if (known !== undefined) return known
  if (lower.startsWith(ATTRIBUTE.toLowerCase())) return ATTRIBUTE + name.slice(ATTRIBUTE.length)
  const dot = lower.lastIndexOf('.')
  const listed = SPELLINGS.get(lower.slice(0, dot))
  const suffix = lower.slice(dot + 1)
  if (listed === undefined || !/^(?:list|\d+)$/.test(suffix)) return name
  return `${listed}.${suffix === 'list' ? 'List' : suffix}`
}

/** What is known of one connection when its policies are filled in. */
export interface ConnectionFacts {
  /** Null over HTTPS, where there is none; then nothing is known of a thing either. */
  readonly clientId: string | null
  readonly remoteAddress: string
  readonly serverName: string | null
  readonly thing: Thing | null
  /** Which of them this CONNECT has. */
  readonly connectAttributes: readonly ('PersistentConnect' | 'LastWill')[]
  /** ARN of the will's topic, see `arnOf`. */
  readonly lastWillTopic: string | null
  /** Of the principal: fields of its certificate and the like. They never stand for a name of the connection. */
  readonly own: Variables
}

export function arnOf(head: ArnHead, resource: string): string {
  return `arn:${head.partition}:iot:${head.region}:${head.accountId}:${resource}`
}

/** Policy variables and condition keys of one connection, wire specification §5.4. */
export function connectionVariables(facts: ConnectionFacts): Variables {
  return new ConnectionVariables(facts)
}

/** A table per session would be kept for as long as it lives. */
class ConnectionVariables implements Variables {
  readonly #facts: ConnectionFacts

  constructor(facts: ConnectionFacts) {
    this.#facts = facts
  }

  lookup(name: string): readonly string[] | null {
    const facts = this.#facts
    // Without a client id nothing is known of a thing either.
    const thing = facts.clientId === null ? null : facts.thing
    switch (name) {
      case 'iot:ClientId':
        return one(facts.clientId)
      case 'aws:SourceIp':
        return one(facts.remoteAddress)
      case 'iot:DomainName':
        return one(facts.serverName)
      case 'iot:LastWillTopic':
        return one(facts.lastWillTopic)
      case 'iot:Connection.Thing.IsAttached':
        return one(facts.clientId === null ? null : String(thing !== null))
      case 'iot:Connection.Thing.ThingName':
        return one(thing?.name ?? null)
      case 'iot:Connection.Thing.ThingTypeName':
        return one(thing?.typeName ?? null)
      case 'iot:ConnectAttributes':
        return facts.connectAttributes
    }
    // They never stand for a name of the connection.
    if (!name.startsWith(ATTRIBUTE)) return facts.own.lookup(name)
    if (thing === null || !name.endsWith(']')) return null
    const attribute = name.slice(ATTRIBUTE.length, -1)
    return Object.hasOwn(thing.attributes, attribute) ? [thing.attributes[attribute]!] : null
  }
}

const one = (value: string | null): readonly string[] | null => (value === null ? null : [value])
