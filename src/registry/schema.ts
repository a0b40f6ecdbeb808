import { z } from 'zod'
import { AUTHORIZERS } from './authorizer-schema.ts'
import { SECRET } from './secret.ts'
import { ATTRIBUTE_NAME, MAX_ATTRIBUTE, MAX_ATTRIBUTES, THING_NAME } from './template.ts'

/** The form of one registry file. What one entry alone cannot show (names that must exist) is in `files.ts`. */

const text = (what: string) => z.string(`expected ${what}`).min(1, `expected ${what}`)
const status = <const T extends readonly [string, ...string[]]>(values: T) =>
  z.enum(values, `expected one of ${values.join(', ')}`)
const names = (what: string) => z.array(text(`the name of a ${what}`), `expected a list of ${what} names`).default([])

const THING = z.strictObject(
  {
    type: z
      .string('expected a thing type')
      .regex(THING_NAME, 'expected a thing type of [a-zA-Z0-9:_-]{1,128}')
      .optional(),
    attributes: z
      .record(
        z.string().regex(ATTRIBUTE_NAME, 'expected an attribute name of [a-zA-Z0-9_.,@/:#-]{1,128}'),
        z
          .string('expected a text, quoted if it looks like a number')
          .max(MAX_ATTRIBUTE, `expected at most ${MAX_ATTRIBUTE} characters`)
          .regex(/^[^\u0000-\u001f\u007f]*$/, 'expected a text without control characters'),
      )
      .refine((all) => Object.keys(all).length <= MAX_ATTRIBUTES, `expected at most ${MAX_ATTRIBUTES} attributes`)
      .default({}),
  },
  { error: (issue) => (issue.code === 'unrecognized_keys' ? undefined : 'expected { type, attributes }') },
)

const FINGERPRINT = z
  .string('expected 64 hex digits')
  .transform((value) => value.replaceAll(':', '').toLowerCase())
  .pipe(z.string().regex(/^[0-9a-f]{64}$/, 'must be the SHA-256 of the certificate’s DER: 64 hex digits'))

const CERTIFICATE = z
  .strictObject({
    file: text('a PEM file').optional(),
    fingerprint: FINGERPRINT.optional(),
    status: status(['ACTIVE', 'INACTIVE', 'REVOKED', 'PENDING_ACTIVATION']).default('ACTIVE'),
    things: names('thing'),
    exclusive: z.boolean('expected true or false').default(false),
    policies: names('policy'),
  })
  .refine((entry) => (entry.file === undefined) !== (entry.fingerprint === undefined), {
    error: 'needs a file or a fingerprint, and not both',
  })
  .refine((entry) => !entry.exclusive || entry.things.length === 1, {
    error: 'an exclusive certificate has exactly one thing',
    path: ['exclusive'],
  })

const CA = z.strictObject({
  file: text('a PEM file'),
  status: status(['ACTIVE', 'INACTIVE']).default('ACTIVE'),
  autoRegister: z
    .union(
      [
        z.enum(['no', 'pending']),
        z.literal(false),
        z.strictObject({ template: z.union([z.string(), z.looseObject({})]) }),
      ],
      'expected no, pending or { template: … }',
    )
    // YAML 1.1 habits: an unquoted «no» is a text in YAML 1.2, and `false` means the same.
    .transform((value) => (value === false ? 'no' : value))
    .default('no'),
  maxPerMinute: z
    .int('expected a whole number such as 60')
    .min(1, 'expected a whole number from 1')
    .max(1_000_000, 'expected at most 1000000')
    .default(60),
})

const POLICY_NAME = /^[\w+=,.@-]{1,128}$/
const ACCESS_KEY_ID = /^\w{1,128}$/

const ACCESS_KEY = z.strictObject({
  id: z.string('expected an access key id').regex(ACCESS_KEY_ID, 'expected 1 to 128 letters and digits'),
  secret: SECRET,
  sessionToken: SECRET.optional(),
  status: status(['ACTIVE', 'INACTIVE']).default('ACTIVE'),
  policies: names('policy'),
})

// A section whose entries are all commented out is empty, not wrong.
const emptied = (value: unknown): unknown => value ?? undefined
const list = <T extends z.ZodType>(entry: T) => z.preprocess(emptied, z.array(entry, 'expected a list').default([]))
const map = <T extends z.ZodType>(name: RegExp, what: string, entry: T) =>
  z.preprocess(
    emptied,
    z.record(z.string().regex(name, `expected ${what}`), entry, 'expected names with what they stand for').default({}),
  )

export const REGISTRY_FILE = z.strictObject(
  {
    // `sensor-1:` with nothing after it is a thing without attributes.
    things: map(
      THING_NAME,
      'a thing name of [a-zA-Z0-9:_-]{1,128}',
      z.preprocess((value) => value ?? {}, THING),
    ),
    certificates: list(CERTIFICATE),
    cas: list(CA),
    policies: map(POLICY_NAME, 'a policy name of [\\w+=,.@-]{1,128}', z.unknown()),
    accessKeys: list(ACCESS_KEY),
    authorizers: z.preprocess(emptied, AUTHORIZERS.default({})),
  },
  {
    error: (issue) => (issue.code === 'unrecognized_keys' ? undefined : 'expected sections such as «certificates: …»'),
  },
)

export type RegistryFile = z.output<typeof REGISTRY_FILE>
