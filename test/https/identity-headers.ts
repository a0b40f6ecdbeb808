// Headers that claim who somebody is, in every form in which they are smuggled, and all that a backend may see instead.

/** Names that somebody somewhere believes. */
export const NAMES = [
  'X-Client-Cert',
  'X-Client-Cert-Chain',
  'X-Client-Verify',
  'X-Client-Dn',
  'X-SSL-Client-Cert',
  'X-SSL-Client-S-Dn',
  'SSL-Client-Cert',
  'Client-Cert',
  'X-Forwarded-For',
  'X-Forwarded-Proto',
  'X-Forwarded-Host',
  'X-Forwarded-Port',
  'X-Forwarded-User',
  'X-Forwarded-Client-Cert',
  'Forwarded',
  'Via',
  'X-Real-Ip',
  'X-Original-Url',
  'X-Rewrite-Url',
  'X-Amzn-Iot-Principal',
  'X-Amzn-Iot-Thingname',
  'X-Amz-Security-Token',
  'X-Amz-CustomAuthorizer-Name',
  'X-Amz-CustomAuthorizer-Signature',
  'Authorization',
  'Proxy-Authorization',
  'Cookie',
  'Remote-User',
  'X-Brokergate-Principal',
  'X-Brokergate-Thing',
  'Token',
] as const

export const FORMS = {
  plain: (name: string) => `${name}: forged`,
  underscore: (name: string) => `${name.replaceAll('-', '_')}: forged`,
  duplicate: (name: string) => `${name}: forged\r\n${name.toLowerCase()}: forged`,
  'named by Connection': (name: string) => `Connection: ${name}, keep-alive\r\n${name}: forged`,
  folded: (name: string) => `X-Any: 1\r\n ${name}: forged`,
} as const

/** All that a backend may see of a bare GET. */
export const EXPECTED = [
  'connection',
  'host',
  'x-brokergate-domain',
  'x-brokergate-method',
  'x-brokergate-principal',
  'x-brokergate-request-id',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
]
