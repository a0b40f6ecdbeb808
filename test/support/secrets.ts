import { createPrivateKey, randomInt } from 'node:crypto'

/** A piece of a secret that stands where it should not. */
export interface Leak {
  /** Of the secret, as it was planted. */
  readonly secret: string
  /** How it was written there. */
  readonly form: string
  /** What stands around it. */
  readonly excerpt: string
}

/** A piece of this many bytes is a leak, wherever in the secret it is: half a password helps to guess the other half. */
const PIECE_BYTES = 12
const STEP_BYTES = 4
/** What a needle is found by; the shortest needle is longer. */
const KEY_LENGTH = 8
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'
const PLANTED_LENGTH = 28

interface Needle {
  readonly text: string
  readonly secret: string
  readonly form: string
}

/**
 * Secrets that are put in everywhere, and the search for them in what comes out. Looks for pieces of each as it is, in
 * hex, base64 (at each of the three places where it can begin within a longer text), percent-encoded and as a list of
 * octets, which is how JSON has a Buffer.
 */
export class PlantedSecrets {
  readonly #secrets = new Map<string, Buffer>()
  #needles: Map<string, Needle[]> | null = null

  get names(): readonly string[] {
    return [...this.#secrets.keys()]
  }

  /** A fresh one of letters and digits, which needs no quoting anywhere. */
  plant(name: string): string {
    const text = Array.from({ length: PLANTED_LENGTH }, () => ALPHABET[randomInt(ALPHABET.length)]).join('')
    this.keep(name, text)
    return text
  }

  /** One that was made elsewhere: a signature, a token, a hash. */
  keep(name: string, secret: string | Uint8Array): void {
    const bytes = Buffer.from(typeof secret === 'string' ? Buffer.from(secret, 'utf8') : secret)
    if (bytes.length < PIECE_BYTES) throw new RangeError(`${name}: shorter than ${PIECE_BYTES} bytes`)
    if (this.#secrets.has(name)) throw new RangeError(`${name}: planted already`)
    this.#secrets.set(name, bytes)
    this.#needles = null
  }

  /** Of a private key the part that is private; the rest of its file stands in the certificate, too. */
  keepKey(name: string, pem: string): void {
    const { d } = createPrivateKey(pem).export({ format: 'jwk' })
    if (d === undefined) throw new RangeError(`${name}: not a private key`)
    this.keep(name, Buffer.from(d, 'base64url'))
  }

  /** Every secret and form that occurs, each once. */
  scan(text: string): readonly Leak[] {
    this.#needles ??= needlesOf(this.#secrets)
    const found = new Map<string, Leak>()
    const maybe = filterOf(this.#needles.keys())
    for (let at = 0; at + KEY_LENGTH <= text.length; at++) {
      if (maybe[hashAt(text, at)] === 0) continue
      for (const { text: needle, secret, form } of this.#needles.get(text.slice(at, at + KEY_LENGTH)) ?? []) {
        const leak = `${secret} ${form}`
        if (found.has(leak) || !text.startsWith(needle, at)) continue
        found.set(leak, { secret, form, excerpt: text.slice(Math.max(0, at - 120), at + needle.length + 40) })
      }
    }
    return [...found.values()]
  }
}

/** One line a leak, for the message of an assertion. */
export const leakText = (leaks: readonly Leak[]): string =>
  leaks.map(({ secret, form, excerpt }) => `${secret} (${form}): …${excerpt.replaceAll(/\s+/g, ' ')}…`).join('\n')

function needlesOf(secrets: ReadonlyMap<string, Buffer>): Map<string, Needle[]> {
  const needles = new Map<string, Needle[]>()
  for (const [secret, bytes] of secrets) {
    for (const piece of piecesOf(bytes)) {
      for (const [form, text] of formsOf(piece)) {
        const key = text.slice(0, KEY_LENGTH)
        const list = needles.get(key) ?? []
        if (list.length === 0) needles.set(key, list)
        list.push({ text, secret, form })
      }
    }
  }
  return needles
}

function piecesOf(bytes: Buffer): readonly Buffer[] {
  const starts = new Set<number>([bytes.length - PIECE_BYTES])
  for (let start = 0; start + PIECE_BYTES <= bytes.length; start += STEP_BYTES) starts.add(start)
  return [...starts].map((start) => bytes.subarray(start, start + PIECE_BYTES))
}

function formsOf(piece: Buffer): readonly (readonly [form: string, text: string])[] {
  const octets = [...piece]
  const hex = octets.map((octet) => octet.toString(16).padStart(2, '0'))
  const forms: [string, string][] = [
    ['as it is', piece.toString('latin1')],
    ['list of octets', octets.join(',')],
    ['list of octets', octets.join(', ')],
  ]
  for (const digits of [hex, hex.map((pair) => pair.toUpperCase())]) {
    for (const between of ['', ' ', ':']) forms.push(['hex', digits.join(between)])
    forms.push(['percent-encoded', digits.map((pair) => `%${pair}`).join('')])
  }
  const component = percentEncoded(octets)
  if (component !== piece.toString('latin1')) forms.push(['percent-encoded', component])
  for (const before of [0, 1, 2]) {
    const whole = Buffer.concat([Buffer.alloc(before), piece])
    // The first and the last character depend on the neighbours where they hold bits of them.
    const base64 = whole.toString('base64').slice(Math.ceil((before * 8) / 6), Math.floor((whole.length * 8) / 6))
    forms.push(['base64', base64])
    const forUrls = base64.replaceAll('+', '-').replaceAll('/', '_')
    if (forUrls !== base64) forms.push(['base64url', forUrls])
  }
  return forms
}

/** As `encodeURIComponent`, for octets that may be no text. */
const percentEncoded = (octets: readonly number[]): string =>
  octets
    .map((octet) => {
      const character = String.fromCharCode(octet)
      return /[A-Za-z0-9_.!~*'()-]/.test(character)
        ? character
        : `%${octet.toString(16).toUpperCase().padStart(2, '0')}`
    })
    .join('')

const FILTER_SIZE = 1 << 16

function filterOf(keys: Iterable<string>): Uint8Array {
  const filter = new Uint8Array(FILTER_SIZE)
  for (const key of keys) filter[hashAt(key, 0)] = 1
  return filter
}

/** Of four of the characters: enough to pass over nearly every place of a log without cutting a text out of it. */
const hashAt = (text: string, at: number): number =>
  ((((text.charCodeAt(at) * 31 + text.charCodeAt(at + 2)) * 31 + text.charCodeAt(at + 5)) * 31 +
    text.charCodeAt(at + 7)) *
    7) &
  (FILTER_SIZE - 1)
