// A browser cannot show a certificate of its own or choose an ALPN name: it comes with a presigned URL on port 443, and
// that must be enough. A real Chromium, and the command that a user types.
import test from 'ava'
import { brokergate, witness } from '../support/clients.ts'
import { eventually } from '../support/e2e.ts'
import { ACCESS_KEY, openGateway, serverCertificate, TEMPORARY_KEY } from '../support/gateway.ts'
import { hasBrowser, inBrowser } from './browser.ts'

const withBrowser = hasBrowser ? test.serial : test.serial.skip

for (const [name, { id }] of Object.entries({ 'an access key': ACCESS_KEY, 'a temporary one': TEMPORARY_KEY })) {
  withBrowser(
    `a page in Chromium connects over WSS by the URL that brokergate presign prints, with ${name}`,
    async (t) => {
      const gateway = await openGateway(t)
      const seen = await witness(t, gateway, 'from/browser')
      const url = await brokergate([
        ...['presign', '--config', `${gateway.dir}/brokergate.yaml`, '--access-key', id],
        ...['--url', `wss://localhost:${gateway.ports.web}`],
      ])
      for (const protocolVersion of [4, 5]) {
        const payload = `hello from version ${protocolVersion}`
        const report = await inBrowser(t, {
          url,
          certificate: serverCertificate.certPem,
          topic: 'from/browser',
          payload,
          options: { protocolVersion, clientId: `page-${protocolVersion}` },
        })
        t.like(report, { connected: true, received: payload, error: null })
        await eventually(() => seen.find((message) => message.payload === payload), payload)
      }
    },
  )
}

withBrowser('a page whose URL was signed with another secret is not let in', async (t) => {
  const gateway = await openGateway(t)
  const url = await brokergate(
    ['presign', '--url', `wss://localhost:${gateway.ports.web}`, '--access-key-id', ACCESS_KEY.id],
    { AWS_SECRET_ACCESS_KEY: 'guessed' },
  )
  const report = await inBrowser(t, {
    url,
    certificate: serverCertificate.certPem,
    topic: 'from/browser',
    payload: 'x',
    options: { connectTimeout: 5_000, reconnectPeriod: 0 },
    withinMs: 30_000,
  })
  t.false(report.connected)
})
