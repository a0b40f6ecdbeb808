import { createHash, type X509Certificate } from 'node:crypto'
import { z } from 'zod'
import { parsePolicyDocument } from '../policy/document.ts'
import type { Thing } from './entries.ts'
import { type Expression, expression, fill, isFunction, parametersOf, substitute } from './expression.ts'
import { subjectField } from './subject.ts'

// Provisioning templates: what a device becomes that registers itself. Either AWS IoT's JSON for just-in-time provisioning
// (Parameters, Resources), or a short form of our own. What stands in the certificate's subject is the only input.

/** Wire specification §2.4: `AWS::IoT::Certificate::` + the key. The value is OpenSSL's short name; null is the fingerprint. */
const SUBJECT_FIELDS: ReadonlyMap<string, string | null> = new Map([
  ['Country', 'C'],
  ['Organization', 'O'],
  ['OrganizationalUnit', 'OU'],
  ['DistinguishedNameQualifier', 'dnQualifier'],
  ['StateName', 'ST'],
  ['CommonName', 'CN'],
  ['SerialNumber', 'serialNumber'],
  ['Id', null],
])
const PREFIX = 'AWS::IoT::Certificate::'

export const THING_NAME = /^[a-zA-Z0-9:_-]{1,128}$/
export const ATTRIBUTE_NAME = /^[a-zA-Z0-9_.,@/:#-]{1,128}$/
/** Characters of one value: AWS IoT AttributePayload. */
export const MAX_ATTRIBUTE = 800
export const MAX_ATTRIBUTES = 50

/**
 * What a subject may bring into a policy document. A device may choose its own name when its CA signs what it is asked to
 * sign, and must not widen its policy by it: no wildcard, no topic level, no variable, no quote.
 */
const SAFE_IN_POLICY = /^[\w .:@=,-]{1,256}$/

/** What one device becomes. */
export interface Provision {
  readonly thing: Thing | null
  readonly exclusive: boolean
  readonly status: 'ACTIVE' | 'INACTIVE'
  /** Names of policies of the registry. */
  readonly policies: readonly string[]
  /** Policy documents made for it, as JSON, by a name that is derived from their contents. */
  readonly documents: ReadonlyMap<string, string>
}

export type Filled =
  | { readonly kind: 'filled'; readonly provision: Provision }
  /** The subject lacks something, or holds what may not stand there. */
  | { readonly kind: 'failed'; readonly reason: string }

export interface Template {
  /** Names of policies that the registry must have. */
  readonly policies: readonly string[]
  /** @param id SHA-256 of the certificate's DER */
  fill(certificate: X509Certificate, id: string): Filled
}

export type TemplateParse =
  | { readonly kind: 'template'; readonly template: Template }
  | {
      readonly kind: 'invalid'
      readonly issues: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[]
    }

/** A document with holes: an expression that gives its JSON, or the document itself with expressions inside. */
type DocumentTree = string | number | boolean | null | { readonly expression: Expression } | DocumentList | DocumentMap
type DocumentList = readonly DocumentTree[]
interface DocumentMap {
  readonly entries: readonly (readonly [string, DocumentTree])[]
}

interface Plan {
  /** Parameter → where its value comes from. */
  readonly parameters: ReadonlyMap<string, { readonly field: string | null; readonly byDefault: string | null }>
  readonly thingName: Expression | null
  readonly typeName: Expression | null
  readonly attributes: ReadonlyMap<string, Expression>
  readonly exclusive: boolean
  readonly status: 'ACTIVE' | 'INACTIVE'
  readonly policies: readonly string[]
  readonly documents: readonly DocumentTree[]
}

/** Reads either form. Never throws for what an operator wrote. */
export function parseTemplate(input: unknown): TemplateParse {
  const unwrapped = withoutBody(input)
  const isAws = typeof unwrapped === 'object' && unwrapped !== null && 'Resources' in unwrapped
  const parsed = isAws ? awsTemplate(unwrapped) : SHORT_FORM.safeParse(unwrapped)
  if (!parsed.success) {
    return {
      kind: 'invalid',
      issues: parsed.error.issues.flatMap(described),
    }
  }
  const plan = parsed.data
  const template = {
    policies: plan.policies,
    fill: (certificate: X509Certificate, id: string) => provision(plan, certificate, id),
  }
  const broken = documentIssue(plan)
  return broken === null
    ? { kind: 'template', template }
    : { kind: 'invalid', issues: [{ path: [], message: `a policy document that is none: ${broken}` }] }
}

function described(issue: z.core.$ZodIssue) {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: [...issue.path, key], message: 'is not known here' }))
  }
  const message = issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? issue.message) : issue.message
  return [{ path: issue.path, message }]
}

/** `{ templateBody, roleArn }`, as AWS IoT's RegisterCACertificate takes it, with the template as a text inside. */
function withoutBody(input: unknown): unknown {
  if (typeof input !== 'object' || input === null || !('templateBody' in input)) return input
  if (typeof input.templateBody !== 'string') return input.templateBody
  try {
    return JSON.parse(input.templateBody)
  } catch {
    return null
  }
}

/** With a value that is safe everywhere in the place of every parameter: what is wrong then is wrong for every device. */
function documentIssue(plan: Plan): string | null {
  const values = new Map([...plan.parameters.keys()].map((name) => [name, 'x']))
  for (const tree of plan.documents) {
    const made = documentOf(tree, values)
    if ('broken' in made) return made.broken
  }
  return null
}

function provision(plan: Plan, certificate: X509Certificate, id: string): Filled {
  const failed = (reason: string): Filled => ({ kind: 'failed', reason })
  const values = new Map<string, string>()
  for (const [name, { field, byDefault }] of plan.parameters) {
    const value = field === null ? id : (subjectField(certificate, field) ?? byDefault)
    if (value === null) return failed(`the subject has no single ${name.slice(PREFIX.length)}`)
    values.set(name, value)
  }
  const thing = thingOf(plan, values)
  if (typeof thing === 'string') return failed(thing)
  const documents = new Map<string, string>()
  for (const tree of plan.documents) {
    const unsafe = parametersIn(tree).find((name) => !SAFE_IN_POLICY.test(values.get(name)!))
    if (unsafe !== undefined) {
      return failed(`${unsafe.slice(PREFIX.length)} holds characters that may not come into a policy document`)
    }
    const made = documentOf(tree, values)
    if ('broken' in made) return failed(`the policy document is none: ${made.broken}`)
    documents.set(`template:${createHash('sha256').update(made.json).digest('hex').slice(0, 32)}`, made.json)
  }
  const { exclusive, status, policies } = plan
  return { kind: 'filled', provision: { thing, exclusive: exclusive && thing !== null, status, policies, documents } }
}

/** A text says why there is none. */
function thingOf(plan: Plan, values: ReadonlyMap<string, string>): Thing | null | string {
  if (plan.thingName === null) return null
  const name = fill(plan.thingName, values)
  if (!THING_NAME.test(name)) return 'the thing name does not fit [a-zA-Z0-9:_-]{1,128}'
  const typeName = plan.typeName === null ? null : fill(plan.typeName, values)
  if (typeName !== null && !THING_NAME.test(typeName)) return 'the thing type does not fit [a-zA-Z0-9:_-]{1,128}'
  const attributes: Record<string, string> = Object.create(null)
  for (const [attribute, value] of plan.attributes) {
    attributes[attribute] = fill(value, values)
    if (attributes[attribute].length > MAX_ATTRIBUTE) return `an attribute is longer than ${MAX_ATTRIBUTE} characters`
  }
  return { name, typeName, attributes }
}

function documentOf(
  tree: DocumentTree,
  values: ReadonlyMap<string, string>,
): { readonly json: string } | { readonly broken: string } {
  let document = render(tree, values)
  if (typeof document === 'string') {
    try {
      document = JSON.parse(document)
    } catch {
      return { broken: 'not JSON' }
    }
  }
  const parsed = parsePolicyDocument(document)
  if (parsed.kind === 'document') return { json: JSON.stringify(document) }
  const [issue] = parsed.issues
  return { broken: issue === undefined ? 'invalid' : `${issue.path}: ${issue.message}` }
}

function render(tree: DocumentTree, values: ReadonlyMap<string, string>): unknown {
  if (typeof tree !== 'object' || tree === null) return tree
  if (Array.isArray(tree)) return tree.map((item) => render(item, values))
  if ('expression' in tree) return fill(tree.expression, values)
  const map: Record<string, unknown> = Object.create(null)
  for (const [key, value] of (tree as DocumentMap).entries) map[key] = render(value, values)
  return map
}

function parametersIn(tree: DocumentTree): string[] {
  if (typeof tree !== 'object' || tree === null) return []
  if (Array.isArray(tree)) return tree.flatMap(parametersIn)
  if ('expression' in tree) return parametersOf(tree.expression)
  return (tree as DocumentMap).entries.flatMap(([, value]) => parametersIn(value))
}

const NAME_OF_POLICY = z.string('expected the name of a policy')

/** `${CommonName}` and the other fields of the subject, in our own form. */
const shortText = z.string('expected a text').transform((text, context): Expression => {
  const made = substitute(text, (name) => {
    if (SUBJECT_FIELDS.has(name)) return PREFIX + name
    context.addIssue({ code: 'custom', message: `only ${[...SUBJECT_FIELDS.keys()].join(', ')} as variables` })
    return null
  })
  return made
})

const SHORT_FORM = z
  .strictObject(
    {
      thing: shortText.optional(),
      type: shortText.optional(),
      attributes: z
        .record(z.string().regex(ATTRIBUTE_NAME, 'expected the name of an attribute'), shortText)
        .default({}),
      exclusive: z.boolean('expected true or false').default(false),
      policies: z.array(NAME_OF_POLICY).default([]),
    },
    { error: (issue) => (issue.code === 'unrecognized_keys' ? undefined : 'expected a template') },
  )
  .refine(({ thing, ...rest }) => thing !== undefined || (!rest.exclusive && rest.type === undefined), {
    error: 'type and exclusive need a thing',
  })
  .refine(({ attributes }) => Object.keys(attributes).length <= MAX_ATTRIBUTES, {
    error: `at most ${MAX_ATTRIBUTES} attributes`,
  })
  .transform(({ thing, type, attributes, exclusive, policies }): Plan => {
    const expressions = [thing ?? [], type ?? [], ...Object.values(attributes)]
    const parameters = new Map(
      expressions.flatMap(parametersOf).map((name) => [name, { field: fieldOf(name) ?? null, byDefault: null }]),
    )
    return {
      parameters,
      thingName: thing ?? null,
      typeName: type ?? null,
      attributes: new Map(Object.entries(attributes)),
      exclusive,
      status: 'ACTIVE',
      policies,
      documents: [],
    }
  })

/** Undefined: no such parameter. Null: the fingerprint. */
function fieldOf(parameter: string): string | null | undefined {
  return parameter.startsWith(PREFIX) ? SUBJECT_FIELDS.get(parameter.slice(PREFIX.length)) : undefined
}

const PARAMETER = z.strictObject({ Type: z.literal('String', 'expected String'), Default: z.string().optional() })
const PARAMETERS = z.record(
  z
    .string()
    .refine((name) => fieldOf(name) !== undefined, `expected ${PREFIX}… (${[...SUBJECT_FIELDS.keys()].join(', ')})`),
  PARAMETER,
)

/** AWS IoT developer guide, "Provisioning templates", as far as just-in-time provisioning goes. */
function awsTemplate(input: object): z.ZodSafeParseResult<Plan> {
  const declared = new Set(
    'Parameters' in input && typeof input.Parameters === 'object' && input.Parameters !== null
      ? Object.keys(input.Parameters)
      : [],
  )
  const text = expression(declared)
  const thing = z.strictObject({
    Type: z.literal('AWS::IoT::Thing'),
    Properties: z.strictObject({
      ThingName: text,
      ThingTypeName: text.optional(),
      AttributePayload: z
        .record(z.string().regex(ATTRIBUTE_NAME, 'expected the name of an attribute'), text)
        .default({}),
    }),
  })
  const certificate = z.strictObject({
    Type: z.literal('AWS::IoT::Certificate'),
    Properties: z.strictObject({
      CertificateId: z.strictObject({ Ref: z.literal(`${PREFIX}Id`) }, `expected { Ref: ${PREFIX}Id }`),
      Status: z.enum(['ACTIVE', 'INACTIVE'], 'expected ACTIVE or INACTIVE').default('ACTIVE'),
    }),
  })
  const policy = z.strictObject({
    Type: z.literal('AWS::IoT::Policy'),
    Properties: z.union(
      [z.strictObject({ PolicyName: NAME_OF_POLICY }), z.strictObject({ PolicyDocument: documentTree(declared) })],
      'expected a PolicyName or a PolicyDocument',
    ),
  })
  const resource = z.discriminatedUnion('Type', [thing, certificate, policy], 'expected a resource of a known Type')
  return z
    .strictObject({ Parameters: PARAMETERS.default({}), Resources: z.record(z.string(), resource) })
    .transform(({ Parameters, Resources }, context): Plan => {
      const all = Object.values(Resources)
      const things = all.filter((one) => one.Type === 'AWS::IoT::Thing')
      const certificates = all.filter((one) => one.Type === 'AWS::IoT::Certificate')
      const policies = all.filter((one) => one.Type === 'AWS::IoT::Policy').map((one) => one.Properties)
      if (things.length > 1 || certificates.length !== 1) {
        context.addIssue({
          code: 'custom',
          message: 'expected one certificate and at most one thing',
          path: ['Resources'],
        })
        return z.NEVER
      }
      const properties = things[0]?.Properties
      return {
        parameters: new Map(
          Object.entries(Parameters).map(([name, { Default }]) => [
            name,
            { field: fieldOf(name) ?? null, byDefault: Default ?? null },
          ]),
        ),
        thingName: properties?.ThingName ?? null,
        typeName: properties?.ThingTypeName ?? null,
        attributes: new Map(Object.entries(properties?.AttributePayload ?? {})),
        exclusive: false,
        status: certificates[0]!.Properties.Status,
        policies: policies.flatMap((one) => ('PolicyName' in one ? [one.PolicyName] : [])),
        documents: policies.flatMap((one) => ('PolicyDocument' in one ? [one.PolicyDocument] : [])),
      }
    })
    .safeParse(input)
}

/** A document as JSON text, as a function that gives the text, or as it is with functions inside. */
function documentTree(declared: ReadonlySet<string>) {
  const text = expression(declared)
  return z.unknown().transform((value, context): DocumentTree => {
    const convert = (part: unknown, path: readonly PropertyKey[]): DocumentTree => {
      if (isFunction(part)) {
        const compiled = text.safeParse(part)
        if (compiled.success) return { expression: compiled.data }
        for (const issue of compiled.error.issues) {
          context.addIssue({ code: 'custom', message: issue.message, path: [...path, ...issue.path] })
        }
        return null
      }
      if (Array.isArray(part)) return part.map((item, at) => convert(item, [...path, at]))
      if (typeof part === 'object' && part !== null) {
        return { entries: Object.entries(part).map(([key, item]) => [key, convert(item, [...path, key])] as const) }
      }
      return typeof part === 'string' || typeof part === 'number' || typeof part === 'boolean' ? part : null
    }
    return convert(value, [])
  })
}
