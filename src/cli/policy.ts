import { readFileSync } from 'node:fs'
import { splitArn } from '../policy/arn.ts'
import { dateOf } from '../policy/compare.ts'
import { formatPolicyIssue, type PolicyDocument, parsePolicyDocument } from '../policy/document.ts'
import { type Explanation, explain, type StatementReport } from '../policy/explain.ts'
import type { ArnHead, Variables } from '../policy/permit.ts'
import { arnOf, canonicalName, connectionVariables } from '../policy/variables.ts'
import type { Print } from './check.ts'

/** As the command line gives them. */
export interface SimulateOptions {
  readonly policy: readonly string[]
  readonly partition: string
  readonly region: string
  readonly account: string
  readonly clientId?: string | undefined
  readonly sourceIp: string
  readonly serverName?: string | undefined
  readonly thing?: string | undefined
  readonly thingType?: string | undefined
  /** `name=value` */
  readonly attribute: readonly string[]
  readonly persistent?: boolean | undefined
  readonly willTopic?: string | undefined
  /** `name=value`; a name given twice has several values, and it takes the place of the connection's own. */
  readonly variable: readonly string[]
  /** Instead of now. */
  readonly at?: string | undefined
}

const ALLOWED = 0
const DENIED = 1
const USAGE = 2

interface Asked {
  readonly arn: ArnHead
  readonly resource: string
}

/** `brokergate policy simulate`: exit code 0 when the policies allow, 1 when they do not, 2 when the question is none. */
export function simulate(options: SimulateOptions, action: string, resource: string, print: Print): number {
  const documents: PolicyDocument[] = []
  const issues = options.policy.flatMap((file) => readPolicy(file, documents))
  const asked = askedOf(options, resource)
  const seconds = options.at === undefined ? Math.floor(Date.now() / 1000) : dateOf(options.at)
  const given = pairsOf(options.variable)
  const attributes = pairsOf(options.attribute)
  if (asked === null) issues.push(`${resource}: an ARN of another service, or incomplete`)
  if (!/^[a-z0-9-]+:[a-z0-9]+$/i.test(action)) issues.push(`${action}: not an action such as iot:Publish`)
  if (given === null) issues.push('--variable: expected name=value')
  if (attributes === null) issues.push('--attribute: expected name=value')
  if (seconds === null) issues.push('--at: expected a date such as 2030-01-31T12:00:00Z')
  if (issues.length > 0 || asked === null || given === null || attributes === null || seconds === null) {
    for (const issue of issues) print(issue)
    return USAGE
  }
  const variables = override(given, factsOf(options, asked.arn, attributes))
  const explanation = explain(documents, { ...asked, variables, action, seconds })
  report(explanation, `${action} on ${arnOf(asked.arn, asked.resource)}`, options.policy, print)
  return explanation.allowed ? ALLOWED : DENIED
}

/** The file's issues; its document goes to the others. */
function readPolicy(file: string, documents: PolicyDocument[]): readonly string[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    return [`${file}: ${error instanceof Error ? error.message : String(error)}`]
  }
  const parse = parsePolicyDocument(text)
  if (parse.kind === 'invalid') return parse.issues.map((issue) => `${file}: ${formatPolicyIssue(issue)}`)
  documents.push(parse.document)
  return []
}

/** A whole ARN brings its own head. */
function askedOf({ partition, region, account }: SimulateOptions, resource: string): Asked | null {
  if (!resource.startsWith('arn:')) return { arn: { partition, region, accountId: account }, resource }
  const arn = splitArn(resource)
  return arn === null || arn.service !== 'iot' ? null : { arn, resource: arn.resource }
}

function factsOf(
  options: SimulateOptions,
  head: ArnHead,
  attributes: ReadonlyMap<string, readonly string[]>,
): Variables {
  const { clientId, thing, willTopic } = options
  return connectionVariables({
    clientId: clientId ?? null,
    remoteAddress: options.sourceIp,
    serverName: options.serverName ?? null,
    thing:
      thing === undefined
        ? null
        : {
            name: thing,
            typeName: options.thingType ?? null,
            attributes: Object.fromEntries([...attributes].map(([name, values]) => [name, values.at(-1)!])),
          },
    connectAttributes: [
      ...(options.persistent === true ? (['PersistentConnect'] as const) : []),
      ...(willTopic === undefined ? [] : (['LastWill'] as const)),
    ],
    lastWillTopic: willTopic === undefined ? null : arnOf(head, `topic/${willTopic}`),
    own: { lookup: () => null },
  })
}

function override(given: ReadonlyMap<string, readonly string[]>, variables: Variables): Variables {
  const byName = new Map([...given].map(([name, values]) => [canonicalName(name), values]))
  return { lookup: (name) => byName.get(name) ?? variables.lookup(name) }
}

/** Null when one of them is not `name=value`. */
function pairsOf(texts: readonly string[]): ReadonlyMap<string, readonly string[]> | null {
  const pairs = new Map<string, string[]>()
  for (const text of texts) {
    const at = text.indexOf('=')
    if (at < 1) return null
    const name = text.slice(0, at)
    pairs.set(name, [...(pairs.get(name) ?? []), text.slice(at + 1)])
  }
  return pairs
}

function report({ allowed, statements }: Explanation, what: string, files: readonly string[], print: Print): void {
  const deciding = statements.filter(({ applies, effect }) => applies && (effect === 'Deny') === !allowed)
  print(`${allowed ? 'allowed' : 'denied'}: ${what}`)
  if (deciding.length === 0) print('because no statement allows it')
  for (const statement of deciding) tell(statement, 'decided by', files, print)
  for (const statement of statements.filter((one) => one.applies && !deciding.includes(one))) {
    tell(statement, 'overruled', files, print)
  }
  for (const statement of statements.filter(({ applies }) => !applies)) tell(statement, 'does not apply', files, print)
}

function tell(statement: StatementReport, how: string, files: readonly string[], print: Print): void {
  const sid = statement.sid === null ? '' : ` "${statement.sid}"`
  print(`${how}: ${files[statement.document]}: Statement[${statement.statement}]${sid}, ${statement.effect}`)
  for (const reason of statement.reasons) print(`  ${reason}`)
}
