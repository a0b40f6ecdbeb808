// A client id belongs to whoever is connected under it: a stranger with another certificate must not be able to push a
// device out by taking its id, and a plain `mosquitto_pub`, which makes up an id, must still work.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'
import { witness } from '../support/clients.ts'
import { eventually, sleep } from '../support/e2e.ts'
import { openGateway } from '../support/gateway.ts'
import { createCa, issueDevice } from '../support/pki.ts'
import { rawDevice } from '../support/raw-mqtt.ts'

const exec = promisify(execFile)
const other = issueDevice(createCa({ commonName: 'another owner' }), { commonName: 'other' })
const REGISTRY = `certificates:
  - { file: certs/device.pem, status: ACTIVE, policies: [ everything ] }
  - { file: certs/other.pem, status: ACTIVE, policies: [ everything ] }
policies:
  everything: { file: policies/everything.json }
`

for (const workers of [1, 2]) {
  test.serial(`another principal never takes over a live client id, with ${workers} workers`, async (t) => {
    const gateway = await openGateway(t, {
      workers,
      registry: REGISTRY,
      files: { 'registry/certs/other.pem': other.certPem },
    })
    const { mqtt: port } = gateway.ports
    const owner = await rawDevice(t, { port, version: 5, clientId: 'mine' })
    await owner.hear('connack')
    // Whichever worker it comes to.
    for (let tries = 0; tries < 6; tries++) {
      const thief = await rawDevice(t, { port, version: 5, clientId: 'mine', certificate: other })
      t.like(await thief.hear('connack'), { reasonCode: 0x85 })
      await thief.end()
    }
    owner.say({ cmd: 'pingreq' })
    await owner.hear('pingresp')

    // The owner itself may come again, from whatever worker, and the old connection is told.
    await sleep(1_100)
    const again = await rawDevice(t, { port, version: 5, clientId: 'mine' })
    t.like(await again.hear('connack'), { reasonCode: 0 })
    t.like(await owner.hear('disconnect'), { reasonCode: 0x8e })
    await owner.end()
    again.say({ cmd: 'pingreq' })
    await again.hear('pingresp')

    // Gone is gone: then the id is free, also for the other.
    again.say({ cmd: 'disconnect' })
    await again.end()
    await sleep(1_100)
    await eventually(async () => {
      const later = await rawDevice(t, { port, version: 5, clientId: 'mine', certificate: other })
      return ((await later.hear('connack')) as { reasonCode?: number }).reasonCode === 0
    }, 'the freed id')
  })
}

test.serial('mosquitto_pub with an id that it makes up publishes under a policy that allows all', async (t) => {
  const gateway = await openGateway(t)
  const seen = await witness(t, gateway, 'made/up')
  const { dir, ports } = gateway
  for (const version of ['mqttv311', 'mqttv5']) {
    await exec('mosquitto_pub', [
      ...['-h', 'localhost', '-p', String(ports.mqtt), '-V', version, '-q', '1', '-t', 'made/up', '-m', version],
      ...['--cafile', `${dir}/ca.pem`, '--cert', `${dir}/device.pem`, '--key', `${dir}/device.key`],
    ])
    await eventually(() => seen.find(({ payload }) => payload === version), version)
  }
  t.is(seen.length, 2)
})
