/** What we read out of a hello is acted upon before TLS sees it; so TLS has to read the same. */
import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { createServer } from 'node:tls'
import test from 'ava'
import { parseClientHello } from '../../src/listener/client-hello.ts'
import { fixtures, messageOf, records } from '../support/hello-build.ts'

/** The name a TLS server of this runtime reports for these bytes; null when it asks for none. */
async function nameByTls(bytes: Buffer): Promise<string | null> {
  const server = createServer({
    minVersion: 'TLSv1.2',
    SNICallback(name, done) {
      server.emit('named', name)
      done(new Error('seen'))
    },
  })
  const named = once(server, 'named').then(([name]) => String(name))
  const failed = once(server, 'tlsClientError').then(() => null)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write(bytes)
  try {
    return await Promise.race([named, failed])
  } finally {
    socket.destroy()
    server.close()
  }
}

for (const { client, bytes, serverName } of fixtures()) {
  test(`${client}: a TLS server reports the name that we read`, async (t) => {
    for (const wire of [bytes, records(messageOf(bytes), 100)]) {
      const parse = parseClientHello(wire)
      if (parse.kind !== 'hello') return t.fail()
      const { serverName: ours } = parse.hello
      const theirs = await nameByTls(wire)
      t.is(ours.kind === 'name' ? ours.name : null, theirs?.toLowerCase() ?? null)
      t.is(serverName, theirs?.toLowerCase() ?? null)
    }
  })
}
