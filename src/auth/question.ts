import { createHash } from 'node:crypto'
import type { HttpProof, MqttProof } from './authenticator.ts'
import { headersOf, type Parameters, rawQuery, type Token } from './parameters.ts'

/** All that one decision is about. */
export interface Question {
  readonly http: HttpProof | null
  readonly mqtt: MqttProof | null
  readonly parameters: Parameters
  readonly token: Token | null
  readonly signatureVerified: boolean
  /** As the ClientHello had it. */
  readonly serverName: string
  /** Of a certificate that was judged already; null where the way in asks for none. */
  readonly certificate: { readonly id: string; readonly pem: string } | null
  /** The same for all questions about one connection. */
  readonly connectionId: string
}

/**
 * What an authorizer is told; only the parts that exist for the connection. AWS IoT Core developer guide, "Defining your
 * Lambda function" for custom authentication.
 */
export interface AuthorizerRequest {
  readonly token?: string
  readonly signatureVerified: boolean
  readonly protocols: readonly ('tls' | 'http' | 'mqtt')[]
  readonly protocolData: {
    readonly tls: {
      readonly serverName?: string
      /** With `CUSTOM_AUTH_X509` alone: the certificate, and its id. */
      readonly x509CertificatePem?: string
      readonly principalId?: string
    }
    readonly http?: {
      /** Names in lower case; what came twice is joined by a comma (RFC 9110 §5.3). */
      readonly headers: Readonly<Record<string, string>>
      /** As it came, `?` in front. */
      readonly queryString?: string
    }
    readonly mqtt?: {
      /** Whole: parameters and telemetry behind its `?` too. */
      readonly username?: string
      /** Base64 of the octets. */
      readonly password?: string
      /** Only if the device sent one. */
      readonly clientId?: string
    }
  }
  readonly connectionMetadata: {
    /** A UUID. */
    readonly id: string
  }
}

/** Of headers and query together: more is not passed on, and not cut either. */
const MAX_HTTP_BYTES = 8_192

/** Whether headers and query are small enough to be told. */
export function fits({ http }: Question): boolean {
  if (http === null) return true
  let bytes = rawQuery(http)?.length ?? 0
  for (const part of http.rawHeaders) bytes += part.length
  return bytes <= MAX_HTTP_BYTES
}

export function requestOf(question: Question): AuthorizerRequest {
  const { token, http, mqtt, certificate, serverName } = question
  return {
    ...(token !== null && { token: token.text }),
    signatureVerified: question.signatureVerified,
    protocols: ['tls', ...(http === null ? [] : ['http' as const]), ...(mqtt === null ? [] : ['mqtt' as const])],
    protocolData: {
      tls: {
        serverName,
        ...(certificate !== null && { x509CertificatePem: certificate.pem, principalId: certificate.id }),
      },
      ...(http !== null && { http: httpOf(http) }),
      ...(mqtt !== null && { mqtt: mqttOf(mqtt) }),
    },
    connectionMetadata: { id: question.connectionId },
  }
}

function httpOf(http: HttpProof): NonNullable<AuthorizerRequest['protocolData']['http']> {
  // Without a prototype, so that a header named __proto__ is a header.
  const headers: Record<string, string> = Object.create(null)
  for (const [name, value] of headersOf(http)) {
    const before = headers[name]
    headers[name] = before === undefined ? value : `${before}${name === 'cookie' ? '; ' : ', '}${value}`
  }
  const query = rawQuery(http)
  return { headers, ...(query !== null && { queryString: `?${query}` }) }
}

function mqttOf({ username, password, clientId }: MqttProof): NonNullable<AuthorizerRequest['protocolData']['mqtt']> {
  return {
    ...(username !== null && { username }),
    ...(password !== null && { password: Buffer.from(password).toString('base64') }),
    ...(clientId !== '' && { clientId }),
  }
}

/** A UUID of our own making (RFC 9562 §5.8) that is always the same for one connection, and that nobody has to keep. */
export function connectionIdOf(id: string): string {
  const bytes = createHash('sha256').update(id).digest().subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x80
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}
