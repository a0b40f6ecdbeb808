import { isIP } from 'node:net'
import { z } from 'zod'
import { DURATION_UNITS, SIZE_UNITS, scaled } from './units.ts'

// What settings are made of: texts with units, addresses, paths, names, secrets. Each says what it expected.

/** Timers of both runtimes hold 2³¹ − 1 ms; a longer one fires at once. */
const MAX_DURATION_MS = 576 * 3_600_000
/** The largest packet MQTT can express is a little under it (MQTT 5.0 §1.5.5). */
const MAX_PACKET_BYTES = 256 * 1_048_576

/** What was expected, whether the value is missing or wrong. Never repeats the value: it may be a secret. */
export const expected = (what: string) => ({
  error: (issue: { readonly code?: string | undefined; readonly input?: unknown }) => {
    if (issue.code === 'unrecognized_keys') return undefined
    return issue.input === undefined ? `is missing, expected ${what}` : `expected ${what}`
  },
})

export function duration(least: '0s' | '1ms' = '1ms') {
  const what = 'a duration with its unit (ms, s, m or h) such as "30s"'
  return z
    .string(expected(what))
    .regex(/^\d+(ms|s|m|h)$/, `expected ${what}`)
    .refine((text) => !(scaled(text, DURATION_UNITS) > MAX_DURATION_MS), 'expected a duration of at most "576h"')
    .refine((text) => !(scaled(text, DURATION_UNITS) < scaled(least, DURATION_UNITS)), `expected at least "${least}"`)
}
export const toMs = (text: string): number => scaled(text, DURATION_UNITS)

const MAX_TICKET_MS = 24 * 60 * 60 * 1_000

/** Tickets, and the keys that open them, are worth stealing for as long as they last. */
export function ticketTime() {
  return duration()
    .refine((text) => !(toMs(text) < 1_000), 'expected at least "1s"')
    .refine((text) => !(toMs(text) > MAX_TICKET_MS), 'expected at most "24h"')
}

export function size(least: string) {
  const what = 'a size with its unit (B, KiB or MiB) such as "64KiB"'
  return z
    .string(expected(what))
    .regex(/^\d+(B|KiB|MiB)$/, `expected ${what}`)
    .refine((text) => !(scaled(text, SIZE_UNITS) > MAX_PACKET_BYTES), 'expected a size of at most "256MiB"')
    .refine((text) => !(scaled(text, SIZE_UNITS) < scaled(least, SIZE_UNITS)), `expected at least "${least}"`)
}
export const toBytes = (text: string): number => scaled(text, SIZE_UNITS)

export const orNull = <T>(value: T | undefined): T | null => value ?? null

export interface Address {
  /** An IP address without brackets, or for a broker a host name. */
  readonly host: string
  readonly port: number
}

function splitAddress(text: string): Address | null {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined || Number(port) > 65_535 || (bracketed !== undefined && isIP(bracketed) !== 6)) return null
  return { host, port: Number(port) }
}

function isBind(text: string): boolean {
  const address = splitAddress(text)
  return address !== null && isIP(address.host) !== 0
}

/** LDH labels (RFC 1123 §2.1), no trailing dot, no address: what a ClientHello may carry (RFC 6066 §3). */
export function isServerName(text: string): boolean {
  const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i
  return text.length <= 253 && isIP(text) === 0 && text.split('.').every((part) => label.test(part))
}

export function isCidr(text: string): boolean {
  const [, address = '', prefix = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? []
  const family = isIP(address)
  return family !== 0 && Number(prefix) <= (family === 4 ? 32 : 128)
}

export function isBrokerAddress(text: string): boolean {
  const address = splitAddress(text)
  return address !== null && address.port > 0 && (isIP(address.host) !== 0 || /^[\w.-]{1,253}$/.test(address.host))
}

/** For `.transform` after a check; where the check failed, the value is never seen. */
export const toAddress = (text: string): Address => splitAddress(text) ?? { host: text, port: 0 }

const BIND = 'an address and port such as "[::]:8883" or "127.0.0.1:8443"'
export const bind = () => z.string(expected(BIND)).refine(isBind, `expected ${BIND}`)

export const path = (what: string) => z.string(expected(what)).min(1, `expected ${what}`)
export const paths = (what: string) => z.array(path('a path'), expected(what)).min(1, `expected ${what}`)

const TEMPLATE_VARIABLES = /\$\{(?!(?:clientId|domain|principal\.[A-Za-z][\w.:-]*)\})/
export const TEMPLATE_WORDS = 'only ${clientId}, ${domain}, ${principal.id} and ${principal.<attribute>} as variables'
export const isTemplate = (text: string): boolean => !TEMPLATE_VARIABLES.test(text)
export const template = () =>
  z
    .string(expected('a text, quoted if it looks like a number'))
    .min(1, 'expected a text that is not empty')
    .refine(isTemplate, `expected ${TEMPLATE_WORDS}`)

/** A text, or where it stands. `load.ts` puts the text in its place before the schema sees it. */
export const secret = () =>
  z.union(
    [
      z.string(),
      z.strictObject({ file: z.string().describe('A file that holds it; a newline at its end is cut off.') }),
      z.strictObject({ env: z.string().describe('The environment variable that holds it.') }),
    ],
    expected('a text (quoted if it looks like a number), { file: … } or { env: … }'),
  )

const NAME = 'a name of letters, digits, "-" and "_"'
export const name = () => z.string().regex(/^[A-Za-z0-9][\w-]{0,63}$/, `expected ${NAME}`)

const AUTHORIZER_NAME = 'a name of 1–128 letters, digits and _ = , @ -'
export const authorizerName = () =>
  z.string(expected(AUTHORIZER_NAME)).regex(/^[\w=,@-]{1,128}$/, `expected ${AUTHORIZER_NAME}`)

export const section = <S extends z.core.$ZodLooseShape>(shape: S, what = 'a section of settings') =>
  z.strictObject(shape, expected(what))

export const oneOf = <const T extends readonly [string, ...string[]]>(values: T) =>
  z.enum(values, expected(values.length === 1 ? values[0] : `one of ${values.join(', ')}`))
