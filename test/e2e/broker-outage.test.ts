// A publish over HTTPS that was answered with 200 has been acknowledged by the broker, whatever happens to the broker
// meanwhile. A pool that answered first and sent later would lose exactly what it has in its hands when the broker dies.
// What the broker itself keeps when it is killed is its own affair, so its acknowledgements are read on the wire.
import { Agent, request } from 'node:https'
import test from 'ava'
import { brokerTap } from '../support/broker-tap.ts'
import { eventually, sleep } from '../support/e2e.ts'
import { ca, device, openGateway } from '../support/gateway.ts'

const COUNT = Number(process.env.E2E_PUBLISHES ?? 10_000)

test('10,000 publishes at QoS 1, the broker killed and restarted twice: each 200 was delivered, each failure is a 5xx', async (t) => {
  t.timeout(170_000)
  const acknowledged = new Set<string>()
  const gateway = await openGateway(t, { between: (brokerPort) => brokerTap(t, brokerPort, acknowledged) })

  const agent = new Agent({
    keepAlive: true,
    maxSockets: 32,
    ca: ca.certPem,
    cert: device.chainPem,
    key: device.keyPem,
  })
  t.teardown(() => agent.destroy())
  const publish = (payload: string) =>
    new Promise<number>((resolve) => {
      const call = request(
        {
          host: '127.0.0.1',
          port: gateway.ports.https,
          servername: 'localhost',
          path: '/topics/outage/t?qos=1',
          method: 'POST',
          headers: { host: 'localhost' },
          agent,
        },
        (response) => {
          response.resume()
          response.on('end', () => resolve(response.statusCode ?? 0))
          response.on('error', () => resolve(0))
        },
      )
      call.on('error', () => resolve(0))
      call.end(payload)
    })

  const answers = new Map<string, number>()
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < COUNT) {
      const payload = `m${next++}`
      const status = await publish(payload)
      answers.set(payload, status)
      // The broker is away: whoever is told so waits before the next one, as clients do. Without it an outage, however
      // short, would use up the publishes that are to prove something.
      if (status !== 200) await sleep(250)
    }
  }
  const outages = async (): Promise<void> => {
    for (const share of [0.25, 0.6]) {
      await eventually(() => next >= COUNT * share, `${share} of the publishes`, 120_000)
      await gateway.stopBroker()
      await sleep(1_000)
      await gateway.startBroker()
    }
  }
  await Promise.all([outages(), ...Array.from({ length: 32 }, worker)])

  const accepted = [...answers].filter(([, status]) => status === 200).map(([payload]) => payload)
  const others = [...new Set([...answers.values()].filter((status) => status !== 200))]
  t.log({ accepted: accepted.length, failed: COUNT - accepted.length, statuses: others })
  t.is(answers.size, COUNT)
  t.true(accepted.length > COUNT / 2)
  t.true(accepted.length < COUNT)
  t.deepEqual(
    others.filter((status) => status < 500),
    [],
  )
  t.deepEqual(
    accepted.filter((payload) => !acknowledged.has(payload)),
    [],
  )
})
