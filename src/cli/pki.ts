import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  X509Certificate,
} from 'node:crypto'
import { isIP } from 'node:net'
import forge from 'node-forge'
import { certificateParts } from '../registry/der.ts'
import { bitString, encode, integer, oid, time, tlv, toPem } from './der.ts'
import { signatureAlgorithm } from './signature-algorithm.ts'

// A development PKI: the CA, the server and the devices of a first run and of the tests. Names, extensions and
// times are encoded by node-forge; every key and signature is made by node:crypto, because forge has no ECDSA and
// because no JavaScript cryptography belongs on a trust path.

const { asn1, pki } = forge
// @types/node-forge lacks this function of forge's.
const { certificateExtensionToAsn1: extensionToAsn1 } = pki as unknown as {
  certificateExtensionToAsn1(extension: unknown): forge.asn1.Asn1
}
const DAY = 86_400_000

export type KeyType = 'ec' | 'rsa'

/** A certificate with its key. */
export interface Issued {
  readonly certPem: string
  /** PKCS #8. */
  readonly keyPem: string
  readonly cert: X509Certificate
  /** Leaf first, then its intermediates; never the root, which the other side must have already. */
  readonly chainPem: string
}

/** A certificate that signs others. */
export interface Issuer extends Issued {
  readonly key: KeyObject
  /** DER of its subject name: what it issues carries these octets, since names are compared as octets. */
  readonly subjectDer: Buffer
}

interface KeyOptions {
  readonly keyType?: KeyType | undefined
  /** 2048 unless a test wants a key that must be refused. */
  readonly rsaBits?: number | undefined
  /** P-256 unless told. */
  readonly curve?: string | undefined
  /** A private key made before, for a second certificate of it. */
  readonly key?: KeyObject | undefined
  /** Instead of the one derived from the key: for tests of those who trust it too much. */
  readonly subjectKeyIdentifier?: Buffer | undefined
}

interface ValidityOptions {
  readonly days?: number | undefined
  /** An hour ago by default: a device whose clock is a little behind still connects. */
  readonly notBefore?: Date | undefined
  readonly notAfter?: Date | undefined
}

export interface CaOptions extends KeyOptions, ValidityOptions {
  readonly commonName: string
  readonly organization?: string | undefined
  /** Absent: a self-signed root. */
  readonly issuer?: Issuer | undefined
  readonly pathLength?: number | undefined
  readonly serialNumber?: string | undefined
}

export interface ServerOptions extends KeyOptions, ValidityOptions {
  /** DNS names; the first is the common name too. */
  readonly serverNames: readonly string[]
  readonly ips?: readonly string[] | undefined
  readonly serialNumber?: string | undefined
}

export interface DeviceOptions extends KeyOptions, ValidityOptions {
  /** Null: a subject without a common name. */
  readonly commonName: string | null
  readonly organization?: string | undefined
  /** OIDs or forge's names; `['clientAuth']` by default, null for no such extension. */
  readonly extendedKeyUsage?: readonly string[] | null | undefined
  /** Hex, at most 20 octets; random by default. */
  readonly serialNumber?: string | undefined
}

export interface RevokedEntry {
  readonly serial: string
  /** RFC 5280 §5.3.1; 8 is removeFromCRL. */
  readonly reason?: number | undefined
}

export interface RawExtension {
  readonly oid: string
  readonly critical: boolean
  /** DER of the value, without the OCTET STRING around it. */
  readonly value: Buffer
}

export interface CrlOptions {
  /** Serial numbers in hex, in any order. */
  readonly revoked: Iterable<string | RevokedEntry>
  readonly thisUpdate?: Date | undefined
  /** A week after `thisUpdate` by default; null leaves it out. */
  readonly nextUpdate?: Date | null | undefined
  readonly number?: number | undefined
  /** 1 has no extensions at all. */
  readonly version?: 1 | 2 | undefined
  readonly hash?: 'sha1' | 'sha256' | 'sha384' | 'sha512' | undefined
  /** RSA issuers only: RSASSA-PSS instead of PKCS #1 v1.5. */
  readonly pss?: boolean | undefined
  readonly extensions?: readonly RawExtension[] | undefined
}

/** A root, or with `issuer` an intermediate. */
export function createCa(options: CaOptions): Issuer {
  const { issuer } = options
  const { privateKey, publicKey } = createKeys(options)
  const subjectDer = nameOf(options.commonName, options.organization)
  const made = issue(issuer ?? { key: privateKey, subjectDer, cert: null, chainPem: '' }, {
    ...options,
    subjectDer,
    privateKey,
    publicKey,
    days: options.days ?? 3650,
    extensions: [
      {
        name: 'basicConstraints',
        critical: true,
        cA: true,
        ...(options.pathLength === undefined ? {} : { pathLenConstraint: options.pathLength }),
      },
      { name: 'keyUsage', critical: true, digitalSignature: true, keyCertSign: true, cRLSign: true },
    ],
  })
  return { ...made, key: privateKey, subjectDer }
}

/** A CA made earlier, from its files. @throws when certificate and key do not belong together */
export function loadCa(certPem: string, keyPem: string, chainPem: string = certPem): Issuer {
  const cert = new X509Certificate(certPem)
  const key = createPrivateKey(keyPem)
  if (!cert.checkPrivateKey(key)) throw new Error('the CA certificate and its key do not belong together')
  return { certPem, keyPem, cert, chainPem, key, subjectDer: subjectOf(cert) }
}

export function issueServer(ca: Issuer, options: ServerOptions): Issued {
  const keys = createKeys(options)
  const altNames = [
    ...options.serverNames.map((value) => ({ type: 2, value })),
    ...(options.ips ?? []).map((ip) => ({ type: 7, ip: checkedIp(ip) })),
  ]
  return issue(ca, {
    ...options,
    ...keys,
    subjectDer: nameOf(options.serverNames[0] ?? null),
    days: options.days ?? 825,
    extensions: [
      { name: 'basicConstraints', critical: true, cA: false },
      { name: 'keyUsage', critical: true, digitalSignature: true, keyEncipherment: options.keyType === 'rsa' },
      { name: 'extKeyUsage', serverAuth: true },
      // Critical when the subject is empty (RFC 5280 §4.2.1.6).
      { name: 'subjectAltName', critical: options.serverNames.length === 0, altNames },
    ],
  })
}

export function issueDevice(ca: Issuer, options: DeviceOptions): Issued {
  const keys = createKeys(options)
  const purposes = options.extendedKeyUsage === undefined ? ['clientAuth'] : options.extendedKeyUsage
  return issue(ca, {
    ...options,
    ...keys,
    subjectDer: nameOf(options.commonName, options.organization),
    days: options.days ?? 825,
    extensions: [
      { name: 'basicConstraints', critical: true, cA: false },
      { name: 'keyUsage', critical: true, digitalSignature: true },
      ...(purposes === null
        ? []
        : [{ name: 'extKeyUsage', ...Object.fromEntries(purposes.map((purpose) => [purpose, true])) }]),
    ],
  })
}

/** A certificate revocation list, RFC 5280 §5. Entries are written as bytes, so that a million of them are no trouble. */
export function createCrl(ca: Issuer, options: CrlOptions): { readonly pem: string; readonly der: Buffer } {
  const version = options.version ?? 2
  const thisUpdate = options.thisUpdate ?? new Date()
  const nextUpdate = options.nextUpdate === undefined ? new Date(thisUpdate.getTime() + 7 * DAY) : options.nextUpdate
  const algorithm = signatureAlgorithm(ca.key, options.hash ?? 'sha256', options.pss ?? false)
  const revokedAt = time(thisUpdate)

  const entries: Buffer[] = []
  for (const entry of options.revoked) {
    const { serial, reason } = typeof entry === 'string' ? { serial: entry, reason: undefined } : entry
    const parts = [integer(Buffer.from(evenHex(serial), 'hex')), revokedAt]
    if (reason !== undefined) {
      parts.push(
        tlv(0x30, rawExtension({ oid: '2.5.29.21', critical: false, value: tlv(0x0a, Buffer.from([reason])) })),
      )
    }
    entries.push(tlv(0x30, ...parts))
  }

  const number = integer(Buffer.from(evenHex((options.number ?? 1).toString(16)), 'hex'))
  const extensions = [
    { oid: '2.5.29.35', critical: false, value: tlv(0x30, tlv(0x80, keyIdentifier(publicKeyOf(ca)))) },
    { oid: '2.5.29.20', critical: false, value: number },
    ...(options.extensions ?? []),
  ]
  const tbs = tlv(
    0x30,
    ...(version === 2 ? [integer(Buffer.from([1]))] : []),
    algorithm.der,
    ca.subjectDer,
    time(thisUpdate),
    ...(nextUpdate === null ? [] : [time(nextUpdate)]),
    // An empty list must be left out (RFC 5280 §5.1.2.6).
    ...(entries.length === 0 ? [] : [tlv(0x30, Buffer.concat(entries))]),
    ...(version === 2 ? [tlv(0xa0, tlv(0x30, ...extensions.map(rawExtension)))] : []),
  )
  const der = tlv(0x30, tbs, algorithm.der, bitString(algorithm.sign(tbs)))
  return { pem: toPem('X509 CRL', der), der }
}

interface Request extends ValidityOptions {
  readonly subjectDer: Buffer
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
  readonly serialNumber?: string | undefined
  readonly subjectKeyIdentifier?: Buffer | undefined
  /** In forge's form. */
  readonly extensions: readonly Record<string, unknown>[]
}

type Signer = Pick<Issuer, 'key' | 'subjectDer' | 'chainPem'> & { readonly cert: X509Certificate | null }

/** TBSCertificate (RFC 5280 §4.1) and its signature. */
function issue(signer: Signer, request: Request): Issued {
  const notBefore = request.notBefore ?? new Date(Date.now() - 3_600_000)
  const notAfter = request.notAfter ?? new Date(notBefore.getTime() + (request.days ?? 1) * DAY)
  const algorithm = signatureAlgorithm(signer.key, 'sha256', false)
  const spki = request.publicKey.export({ type: 'spki', format: 'der' })
  const issuerSpki = signer.cert === null ? spki : signer.cert.publicKey.export({ type: 'spki', format: 'der' })

  const holder = pki.createCertificate()
  holder.setExtensions([...request.extensions])
  const extensions = [
    ...holder.extensions.map((extension) => encode(extensionToAsn1(extension))),
    rawExtension({
      oid: '2.5.29.14',
      critical: false,
      value: tlv(0x04, request.subjectKeyIdentifier ?? keyIdentifier(spki)),
    }),
    rawExtension({ oid: '2.5.29.35', critical: false, value: tlv(0x30, tlv(0x80, keyIdentifier(issuerSpki))) }),
  ]
  const serial = request.serialNumber === undefined ? randomSerial() : Buffer.from(evenHex(request.serialNumber), 'hex')
  const tbs = tlv(
    0x30,
    tlv(0xa0, integer(Buffer.from([2]))),
    integer(serial),
    algorithm.der,
    signer.subjectDer,
    tlv(0x30, time(notBefore), time(notAfter)),
    request.subjectDer,
    spki,
    tlv(0xa3, tlv(0x30, ...extensions)),
  )
  const der = tlv(0x30, tbs, algorithm.der, bitString(algorithm.sign(tbs)))
  const certPem = toPem('CERTIFICATE', der)
  const cert = new X509Certificate(der)
  const keyPem = request.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  // The root stays out of the chain: it is its own issuer, and the other side trusts it or does not.
  const above = signer.cert === null || isSelfIssued(signer.cert) ? '' : signer.chainPem
  return { certPem, keyPem, cert, chainPem: certPem + above }
}

function createKeys(options: KeyOptions): { readonly privateKey: KeyObject; readonly publicKey: KeyObject } {
  if (options.key !== undefined) return { privateKey: options.key, publicKey: createPublicKey(options.key) }
  return options.keyType === 'rsa'
    ? generateKeyPairSync('rsa', { modulusLength: options.rsaBits ?? 2048 })
    : generateKeyPairSync('ec', { namedCurve: options.curve ?? 'P-256' })
}

function nameOf(commonName: string | null, organization?: string): Buffer {
  const attribute = (name: string, value: string) => ({ name, value, valueTagClass: asn1.Type.UTF8 })
  const holder = pki.createCertificate()
  holder.setSubject([
    ...(organization === undefined ? [] : [attribute('organizationName', organization)]),
    ...(commonName === null ? [] : [attribute('commonName', commonName)]),
    // @types/node-forge wants the tag's name as its own type; the value is forge's constant.
  ] as unknown as forge.pki.CertificateField[])
  return encode(pki.distinguishedNameToAsn1(holder.subject))
}

/** The subject's octets as they stand in the certificate. */
function subjectOf(cert: X509Certificate): Buffer {
  const parts = certificateParts(cert.raw)
  if (parts === null) throw new Error('the CA certificate is not DER')
  return Buffer.from(parts.subject)
}

function isSelfIssued(cert: X509Certificate): boolean {
  return cert.checkIssued(cert)
}

function publicKeyOf(ca: Issuer): Buffer {
  return ca.cert.publicKey.export({ type: 'spki', format: 'der' })
}

/** Method (1) of RFC 5280 §4.2.1.2: SHA-1 of the subjectPublicKey bits; an identifier, not a proof. */
function keyIdentifier(spki: Buffer): Buffer {
  const tree = asn1.fromDer(spki.toString('latin1'), { decodeBitStrings: false } as unknown as boolean)
  const bits = (tree.value as forge.asn1.Asn1[])[1]?.value as string
  return createHash('sha1').update(Buffer.from(bits, 'latin1').subarray(1)).digest()
}

/** Positive, 16 octets with the highest bit clear and the next one set: never shortened, well under 20 (RFC 5280 §4.1.2.2). */
function randomSerial(): Buffer {
  const serial = randomBytes(16)
  serial[0] = (serial[0]! & 0x7f) | 0x40
  return serial
}

function rawExtension(extension: RawExtension): Buffer {
  const critical = extension.critical ? [Buffer.from('0101ff', 'hex')] : []
  return tlv(0x30, oid(extension.oid), ...critical, tlv(0x04, extension.value))
}

function evenHex(hex: string): string {
  return hex.length % 2 === 0 ? hex : `0${hex}`
}

function checkedIp(ip: string): string {
  if (isIP(ip) === 0) throw new Error(`${ip} is not an IP address`)
  return ip
}
