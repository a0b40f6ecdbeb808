// MQTT.js as a device of its own, on the Node that is there: under Bun its WebSocket would be Bun's, which cannot be led to
// an address beside the name. Argument: JSON { url, address, options, topic, payload }; the host of the URL is found at
// `address`. Publishes once at QoS 1, prints one JSON line.
import mqtt from 'mqtt'

const { url, address, options, topic, payload } = JSON.parse(process.argv[2])
const family = address.includes(':') ? 6 : 4
options.wsOptions.lookup = (_host, { all }, done) =>
  all ? done(null, [{ address, family }]) : done(null, address, family)
const client = mqtt.connect(url, { reconnectPeriod: 0, connectTimeout: 10_000, ...options })
const end = (result) => process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
client.once('error', (error) => end({ ok: false, error: String(error) }))
client.once('close', () => end({ ok: false, error: 'closed before CONNACK' }))
client.once('connect', async () => {
  client.removeAllListeners('close')
  await client.publishAsync(topic, payload, { qos: 1 })
  end({ ok: true })
})
