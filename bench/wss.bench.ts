import type { Bench } from './harness/bench.ts'
import { PUBLISH_FIGURES } from './harness/figures.ts'
import { type Crowd, comparePublishes, leave, SESSIONS } from './harness/publish.ts'
import { deviceAt, isOurs, withSides } from './harness/sides.ts'
import { createIdentity, type Device, openDevice } from './load/device.ts'
import { payloadOf, webSocketMessage } from './load/packets.ts'
import { startWebhook } from './load/webhook.ts'
import { openWssDevice, unframer } from './load/wss.ts'
import { TOPIC_OF } from './peers/brokergate.ts'
import { TOKEN_NAME, WSS_NAME } from './peers/materials.ts'

const CASES = [
  { name: 'QoS 1, 128 B, one in flight', qos: 1, inFlight: 1, bytes: 128 },
  { name: 'QoS 1, 128 B, 16 in flight', qos: 1, inFlight: 16, bytes: 128 },
  { name: 'QoS 1, 16 KiB, one in flight', qos: 1, inFlight: 1, bytes: 16_384 },
] as const

/** Told behind the name of the proxy whose devices speak MQTT without WebSocket. */
const PLAIN = ', without WebSocket'

export const bench: Bench = {
  title: 'What does MQTT over WebSocket cost above MQTT?',
  about:
    'As «publish», by devices that showed a token; over WebSocket each packet is a masked message of its own. In the same process and the same run the same devices without WebSocket.',
  figures: PUBLISH_FIGURES,
  references: ['brokergate, without WebSocket'],
  async run(context) {
    const webhook = await startWebhook()
    try {
      const extra = { https: false, wss: true, authorizerUrl: webhook.url, signedTokens: false, shareForSeconds: null }
      await withSides(context, { setup: { extra }, only: isOurs }, async (sides) => {
        const crowds: Crowd[] = []
        const count = context.smoke ? SESSIONS.smoke : SESSIONS.full
        for (const side of sides) {
          const over = createIdentity(context.materials.caPem, WSS_NAME, null)
          const without = createIdentity(context.materials.caPem, TOKEN_NAME, null)
          const web = side.peer.ports.web
          const devices: Device[] = []
          const plain: Device[] = []
          for (let at = 0; at < count; at++) {
            devices.push(await openWssDevice(web, over, `wss-${at.toString().padStart(6, '0')}`, 'allow'))
            const options = { alpn: 'mqtt', port: web, username: 'bench?token=allow', password: 'x' }
            plain.push(await openDevice(deviceAt(side, [without], at, options)))
          }
          crowds.push({ side, label: side.label, devices }, { side, label: side.label + PLAIN, devices: plain })
        }
        const cases = CASES.map(({ name, qos, inFlight, bytes }) => {
          return { name, load: { qos, inFlight, payload: payloadOf(bytes), topic: TOPIC_OF } }
        })
        await comparePublishes(context, crowds, cases, ({ label }, load) =>
          label.endsWith(PLAIN) ? load : { ...load, wrap: webSocketMessage, unwrap: unframer },
        )
        leave(crowds)
      })
    } finally {
      await webhook.close()
    }
  },
}
