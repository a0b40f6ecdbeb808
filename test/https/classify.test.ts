import test from 'ava'
import { classify } from '../../src/https/classify.ts'
import { ADMISSIONS, type Admission, explicitAdmissions } from '../../src/tls/admission.ts'

const open = ADMISSIONS.filter((row) => row.port === 443 && row.alpn === null)
const row = (mode: string) => ADMISSIONS.filter((each) => each.mode === mode)
const explicit = (...pair: Parameters<typeof explicitAdmissions>) => explicitAdmissions(...pair).slice(-1)

const takes = test.macro({
  exec(t, rows: readonly Admission[], protocol: 'wss' | 'https', material: string, expected: string) {
    const way = classify(rows, protocol, {
      sigV4: () => material.includes('sigv4'),
      custom: () => material.includes('custom'),
      defaultAuthorizer: () => material.includes('default'),
    })
    t.is(way.kind === 'refused' ? way.code : `${way.row.mode}${way.proved ? '' : ' by CONNECT'}`, expected)
  },
  title: (_, rows: readonly Admission[], protocol: string, material: string, expected: string) =>
    `${rows.map(({ mode }) => mode).join('')}, ${protocol} with ${material || 'nothing'}: ${expected}`,
})

test(takes, open, 'wss', 'sigv4', 'A')
test(takes, open, 'wss', 'sigv4 custom', 'A')
test(takes, open, 'wss', 'custom', 'B')
test(takes, open, 'wss', '', 'B by CONNECT')
test(takes, open, 'wss', 'default', 'B by CONNECT')
test(takes, open, 'https', 'sigv4', 'F')
test(takes, open, 'https', 'sigv4 custom', 'F')
test(takes, open, 'https', 'custom', 'I')
test(takes, open, 'https', 'default', 'I')
test(takes, open, 'https', '', 'ERR_CREDENTIALS_ABSENT')
test(takes, row('G'), 'https', '', 'G')
test(takes, row('G'), 'https', 'sigv4 custom default', 'G')
test(takes, row('G'), 'wss', 'sigv4', 'ERR_HTTP_NOT_FOUND')
test(takes, row('H'), 'https', 'custom', 'H')
test(takes, row('H'), 'wss', '', 'ERR_HTTP_NOT_FOUND')
test(takes, explicit('AWS_X509', 'HTTPS'), 'https', 'sigv4', 'AWS_X509/HTTPS')
test(takes, explicit('CUSTOM_AUTH_X509', 'HTTPS'), 'https', '', 'CUSTOM_AUTH_X509/HTTPS')
test(takes, explicit('AWS_SIGV4', 'HTTPS'), 'https', 'sigv4', 'AWS_SIGV4/HTTPS')
test(takes, explicit('AWS_SIGV4', 'HTTPS'), 'https', 'custom default', 'ERR_CREDENTIALS_ABSENT')
test(takes, explicit('AWS_SIGV4', 'HTTPS'), 'wss', 'sigv4', 'ERR_HTTP_NOT_FOUND')
test(takes, explicit('AWS_SIGV4', 'MQTT_WSS'), 'wss', 'sigv4', 'AWS_SIGV4/MQTT_WSS')
test(takes, explicit('AWS_SIGV4', 'MQTT_WSS'), 'wss', '', 'ERR_CREDENTIALS_ABSENT')
test(takes, explicit('AWS_SIGV4', 'MQTT_WSS'), 'https', 'sigv4', 'ERR_HTTP_NOT_FOUND')
test(takes, explicit('CUSTOM_AUTH', 'MQTT_WSS'), 'wss', 'sigv4', 'CUSTOM_AUTH/MQTT_WSS by CONNECT')
test(takes, explicit('CUSTOM_AUTH', 'MQTT_WSS'), 'wss', 'custom', 'CUSTOM_AUTH/MQTT_WSS')
test(takes, explicit('CUSTOM_AUTH', 'HTTPS'), 'https', 'sigv4', 'ERR_CREDENTIALS_ABSENT')
test(takes, explicit('CUSTOM_AUTH', 'HTTPS'), 'https', 'default', 'CUSTOM_AUTH/HTTPS')
