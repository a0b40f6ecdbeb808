// Rows whose proof stands elsewhere and is run again here, so that RESULTS.md tells it from one run: what a broker refuses
// is refused behind the door too, signatures, and the clients that people use.
import { row } from './row.ts'
import { suite } from './suite.ts'

row(
  {
    number: 10,
    title: 'MQTT differential against Mosquitto',
    required: 'never laxer than the broker; what is stricter is on a written list',
    seconds: 120,
  },
  async ({ t, seed }) => {
    const { output } = await suite(['test/e2e/mosquitto-differential.test.ts'], {
      DIFFERENTIAL_SEED: `${seed}`,
      DIFFERENTIAL_COUNT: '400',
      DIFFERENTIAL_MS: '60000',
    })
    // Each of both policies tells how many it compared.
    const compared = [...output.matchAll(/compared: (\d+)/g)].map(([, count]) => Number(count))
    const same = [...output.matchAll(/same: (\d+)/g)].map(([, count]) => Number(count))
    t.is(compared.length, 2, output)
    const sum = (numbers: readonly number[]) => numbers.reduce((total, count) => total + count, 0)
    t.true(sum(compared) > 500, `${compared}`)
    return {
      injected: `${compared.join(' + ')} packet sequences under two policies, each at the broker and through the door`,
      seen: `laxer: 0; the same ${sum(same)}, stricter ${sum(compared) - sum(same)}, each by a row of docs/stricter-than-the-broker.md`,
    }
  },
)

row(
  {
    number: 12,
    title: 'MQTT conformance',
    required: 'nothing lost against the same client straight at the broker',
    seconds: 60,
  },
  async ({ t }) => {
    const { passed } = await suite(
      ['mosquitto', 'session-rules', 'policy-on-packets', 'client-ids'].map((name) => `test/e2e/${name}.test.ts`),
    )
    t.true(passed > 20)
    return {
      injected:
        'MQTT.js and packets by hand, 3.1.1 and 5, QoS 0 to 2, wills, retained, persistent sessions, windows, properties',
      seen: `${passed} tests passed before Mosquitto; what is the same and what is stricter packet by packet: row 10`,
    }
  },
)

row(
  {
    number: 21,
    title: 'memory limit',
    required: 'sheds before it runs out',
    seconds: 30,
  },
  async ({ t }) => {
    const { passed, output } = await suite(['test/e2e/storm.test.ts', '--match', '*short of memory*'])
    t.is(passed, 1)
    const shown = /(\d+ MiB: no more after \d+ sessions)/.exec(output)?.[1]
    t.truthy(shown, output)
    return {
      injected: 'devices that come until `shedding.memory` is reached',
      seen: `${shown}; readiness 503, those inside were served`,
      gap: 'with a limit of our own; not under one of a control group, nor with a mixed attack',
    }
  },
)

row(
  {
    number: 29,
    title: 'SigV4 vectors and their mutations',
    required: 'all accepted, none accepted',
    seconds: 30,
  },
  async ({ t }) => {
    const { passed } = await suite(['vectors', 'mutation', 'sdk'].map((name) => `test/auth/sigv4-${name}.test.ts`))
    t.true(passed > 20)
    return {
      injected:
        'the published vectors and those of the specification, what the signer of the AWS IoT SDK signs, every octet of signed requests changed to every other and left out',
      seen: `${passed} tests passed: all vectors verify, no mutation that means something else does`,
    }
  },
)

const CLIENTS = ['ways-in', 'aws-sdk', 'mosquitto', 'custom-auth', 'https', 'browser'] as const

row({ number: 30, title: 'real clients', required: 'all pass unmodified', seconds: 180 }, async ({ t }) => {
  const { passed, output } = await suite(CLIENTS.map((name) => `test/e2e/${name}.test.ts`))
  const skipped = Number(/(\d+) tests? skipped/.exec(output)?.[1] ?? 0)
  t.true(passed > 20)
  return {
    injected: 'AWS IoT Device SDK v2, MQTT.js, mosquitto_pub and mosquitto_sub, curl, openssl s_client, Chromium',
    seen: `${passed} tests passed, ${skipped} skipped`,
  }
})
