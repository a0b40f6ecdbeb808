// An authorizer that fails must never let anybody in, on whatever way the device came, and what it failed with must
// not be remembered as a no.
import type { ServerResponse } from 'node:http'
import test from 'ava'
import { call, connectDevice, publishOverWss } from '../support/clients.ts'
import { sleep } from '../support/e2e.ts'
import { type Asked, openGateway, TOKEN, yes } from '../support/gateway.ts'
import { forWholeFile } from '../support/proxy.ts'

const file = forWholeFile(test)
let gateway: Awaited<ReturnType<typeof openGateway>>
test.before(async () => {
  gateway = await openGateway(file)
})

/** Each ends in something that is no answer. */
const FAULTS: Readonly<Record<string, (asked: Asked, response: ServerResponse) => void | Promise<void>>> = {
  'time out': async (asked, response) => {
    await sleep(6_000)
    response.end(JSON.stringify(yes(asked)))
  },
  'status 500 with a yes in its body': (asked, response) => {
    response.statusCode = 500
    response.end(JSON.stringify(yes(asked)))
  },
  'a body that is not JSON': (_asked, response) => void response.end('{"isAuthenticated": true'),
  'a yes that is a text': (asked, response) => {
    response.end(JSON.stringify({ ...yes(asked), isAuthenticated: 'true' }))
  },
  'a yes with a policy that is none': (asked, response) => {
    response.end(JSON.stringify({ ...yes(asked), policyDocuments: [{ Statement: 'everything' }] }))
  },
  'a body of 10 MB': (asked, response) => {
    response.end(JSON.stringify({ ...yes(asked), padding: 'x'.repeat(10_000_000) }))
  },
  'a redirect': (_asked, response) => {
    response.writeHead(302, { location: '/elsewhere' })
    response.end()
  },
  'closed in the middle of the body': (asked, response) => {
    const text = JSON.stringify(yes(asked))
    response.writeHead(200, { 'content-length': text.length })
    response.write(text.slice(0, 20))
    setTimeout(() => response.destroy(), 50)
  },
}

const query = `x-amz-customauthorizer-name=open&MyToken=${TOKEN}`
const TRANSPORTS: Readonly<Record<string, (t: Parameters<typeof connectDevice>[0]) => Promise<boolean>>> = {
  MQTT: async (t) =>
    await connectDevice(t, `mqtts://127.0.0.1:${gateway.ports.web}`, {
      ALPNProtocols: ['mqtt'],
      username: `u?${query}`,
    }).then(
      () => true,
      () => false,
    ),
  WebSocket: async () =>
    await publishOverWss(`wss://localhost:${gateway.ports.web}/mqtt?${query}`, '127.0.0.1', 'x').then(
      () => true,
      () => false,
    ),
  HTTPS: async () => (await call(gateway.ports.web, `/topics/f?qos=1&${query}`, { body: 'x' })).status === 200,
}

for (const [fault, answer] of Object.entries(FAULTS)) {
  test.serial(`an authorizer's ${fault}: nobody is let in over MQTT, WebSocket or HTTPS`, async (t) => {
    gateway.answer = answer
    const admitted = await Promise.all(Object.values(TRANSPORTS).map((attempt) => attempt(t)))
    t.deepEqual(admitted, [false, false, false])
  })
}

test.serial('once the authorizer answers again, devices are let in again', async (t) => {
  gateway.answer = (asked, response) => void response.end(JSON.stringify(yes(asked)))
  const deadline = Date.now() + 60_000
  for (const [name, attempt] of Object.entries(TRANSPORTS)) {
    let admitted = false
    // The circuit may be open for a while.
    while (!admitted && Date.now() < deadline) {
      admitted = await attempt(t)
      if (!admitted) await sleep(500)
    }
    t.true(admitted, name)
  }
})

test.serial('a plain no is a refusal with its own status', async (t) => {
  gateway.answer = (_asked, response) => void response.end(JSON.stringify({ isAuthenticated: false }))
  const answer = await call(gateway.ports.web, `/topics/f?qos=1&${query}`, { body: 'x' })
  t.deepEqual([answer.status, answer.headers['x-amzn-errortype']], [401, 'UnauthorizedException:'])
})
