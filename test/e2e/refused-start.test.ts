// A start that cannot be finished must end the process with exit code 1 and say why. One that lingers, deaf to its
// supervisor and with its listeners half open, is worse than one that is down: nobody restarts it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import test from 'ava'
import { createCa, issueServer } from '../support/pki.ts'
import { folderFor, freePort, write } from '../support/proxy.ts'

const MAIN = new URL('../../src/main.ts', import.meta.url).pathname
const ca = createCa({ commonName: 'refused start' })
const server = issueServer(ca, { serverNames: ['localhost'] })

for (const workers of [1, 2]) {
  for (const taken of ['metrics', 'listener'] as const) {
    test.serial(`${workers} worker(s), ${taken} port taken: exit code 1 and the reason`, async (t) => {
      const dir = folderFor(t)
      const ports = { listener: await freePort(), metrics: await freePort() }
      const occupant = createServer().listen(ports[taken], '127.0.0.1')
      await once(occupant, 'listening')
      t.teardown(() => occupant.close())
      write(dir, 'ca.pem', ca.certPem)
      write(dir, 'server.pem', server.chainPem)
      write(dir, 'server.key', server.keyPem)
      const config = write(
        dir,
        'brokergate.yaml',
        `listeners: [ { bind: "127.0.0.1:${ports.listener}", as: 8883 } ]
domains:
  - serverNames: [ localhost ]
    certificates: [ { cert: server.pem, key: server.key } ]
    clientTrust: { mode: ca, ca: [ ca.pem ] }
    backend: main
backends: { main: { kind: embedded } }
metrics: { bind: "127.0.0.1:${ports.metrics}" }
admin: { socket: admin.sock }
workers: ${workers}
log: { format: json }
`,
      )
      const child = spawn(process.execPath, [MAIN, 'run', '-c', config], { stdio: ['ignore', 'pipe', 'pipe'] })
      let output = ''
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (chunk: Buffer) => {
          output += chunk.toString()
        })
      }
      const deadline = setTimeout(() => child.kill('SIGKILL'), 20_000)
      const [code] = (await once(child, 'exit')) as [number | null]
      clearTimeout(deadline)
      t.is(code, 1, output)
      t.regex(output, /EADDRINUSE|in use/)
    })
  }
}
