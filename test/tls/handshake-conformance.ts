import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import type { ExecutionContext, TestFn } from 'ava'
import { createCa, issueDevice } from '../../src/cli/pki.ts'
import { ProxyError } from '../../src/errors.ts'
import type { DomainOptions } from '../../src/tls/domain-options.ts'
import { createDomains } from '../../src/tls/domains.ts'
import { handshake, MAX_CHAIN, type Secured } from '../../src/tls/handshake.ts'
import { TLS_RUNTIME } from '../../src/tls/policies.ts'
import { NO_OPENSSL, OPENSSL, sClient, tempFiles } from '../support/openssl.ts'
import { ca, domainOptions, listen as listenOn, type SecuredStream } from './server.ts'

const contextOf = (wanted = false, over: Partial<DomainOptions> = {}) =>
  createDomains({ generation: 1, domains: [domainOptions(over)] })
    .find(over.serverNames?.[0] ?? 'a.example')!
    .context(wanted)

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

function secured(end: Secured | ProxyError): Secured {
  if (end instanceof Error) throw end
  return end
}

const client = (port: number, more: object = {}): TLSSocket => {
  const socket = connectTls({ port, host: '127.0.0.1', servername: 'a.example', ca: ca.certPem, ...more })
  socket.on('error', () => {})
  return socket
}

/** On Bun by the question for the chain, on Node by the handshake. */
function chainIsRefused(t: ExecutionContext, end: Secured | ProxyError): void {
  t.is(end instanceof ProxyError && end.code, 'ERR_HANDSHAKE_FAILED')
  t.regex((end as ProxyError).message, /more than 8|larger than|handshake|TLS|SSL|cert/i)
}

/** What a handshake promises, on either transport. */
export function behavesLikeAHandshake(test: TestFn, { lift }: { readonly lift: boolean }): void {
  const listen = (options: Parameters<typeof listenOn>[0], onSecured?: Parameters<typeof listenOn>[1]) =>
    listenOn({ lift, ...options }, onSecured)

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    test(`${version}: nothing the device sends early is lost, though nobody listens yet`, async (t) => {
      const opened = Promise.withResolvers<SecuredStream>()
      const server = await listen({ context: contextOf() }, (tls) => opened.resolve(tls))
      try {
        const early = Buffer.alloc(300_000, 'early')
        const device = client(server.port, { minVersion: version, maxVersion: version })
        device.once('secureConnect', () => device.end(early))
        const tls = await opened.promise
        t.is(secured(await server.next()).version, version)
        await sleep(150)
        t.false(tls.readableEnded)
        const chunks: Buffer[] = []
        tls.on('data', (chunk: Buffer) => chunks.push(chunk))
        await new Promise<void>((resolve) => tls.on('end', resolve))
        t.true(Buffer.concat(chunks).equals(early))
        tls.destroy()
      } finally {
        await server.close()
      }
    })

    test(`${version}: a device that has finished sending still gets its answer`, async (t) => {
      const server = await listen({ context: contextOf() }, (tls) => {
        tls.on('data', () => {})
        tls.on('end', () =>
          setTimeout(() => {
            tls.write(Buffer.from('after the end'))
            tls.end()
          }, 50),
        )
      })
      try {
        const device = client(server.port, { minVersion: version, maxVersion: version, allowHalfOpen: true })
        let heard = ''
        device.on('data', (chunk: Buffer) => {
          heard += chunk.toString()
        })
        device.once('secureConnect', () => device.end('done'))
        await new Promise((resolve) => device.once('end', resolve))
        t.is(heard, 'after the end')
      } finally {
        await server.close()
      }
    })

    test(`${version}: a fault after the handshake closes the socket and harms nobody`, async (t) => {
      const server = await listen({ context: contextOf() }, (tls) => tls.on('data', () => {}))
      const relay = await garbler(server.port)
      try {
        const device = client(relay.port, { minVersion: version, maxVersion: version })
        const up = new Promise((resolve) => device.once('secureConnect', resolve))
        const tls: SecuredStream = secured(await server.next()).tls
        const closed = new Promise<void>((resolve) => tls.on('close', resolve))
        await up
        relay.garble()
        await closed
        t.true(tls.destroyed)
      } finally {
        await relay.close()
        await server.close()
      }
    })
  }

  /** Passes bytes on until told to send a record that no key opens. */
  async function garbler(port: number) {
    const pairs: [Socket, Socket][] = []
    const server = createServer((near) => {
      const far = connectTcp(port, '127.0.0.1')
      for (const socket of [near, far]) socket.on('error', () => {})
      near.pipe(far)
      far.pipe(near)
      pairs.push([near, far])
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return {
      port: (server.address() as AddressInfo).port,
      garble: () => pairs[0]![1].write(Buffer.from([23, 3, 3, 0, 32, ...Buffer.alloc(32, 7)])),
      close: () =>
        new Promise<void>((resolve) => {
          for (const socket of pairs.flat()) socket.destroy()
          server.close(() => resolve())
        }),
    }
  }

  test('the one ALPN name given is selected; without one there is no extension', async (t) => {
    for (const [alpn, expected] of [
      ['x-amzn-mqtt-ca', 'x-amzn-mqtt-ca'],
      [null, false],
    ] as const) {
      const server = await listen({ context: contextOf(), alpn })
      try {
        const device = client(server.port, { ALPNProtocols: ['mqtt', 'x-amzn-mqtt-ca'] })
        await new Promise((resolve) => device.once('secureConnect', resolve))
        t.is(device.alpnProtocol, expected)
        device.destroy()
      } finally {
        await server.close()
      }
    }
  })

  test('a handshake that goes on for longer than its deadline fails, and both sockets are gone', async (t) => {
    const server = await listen({ context: contextOf(), deadlineMs: 80 })
    try {
      const device = connectTcp(server.port, '127.0.0.1')
      device.on('error', () => {})
      device.write(Buffer.from([22, 3, 1, 2, 0, 1]))
      const closed = new Promise((resolve) => device.once('close', resolve))
      const end = await server.next()
      t.is(end instanceof ProxyError && end.code, 'ERR_HANDSHAKE_TIMEOUT')
      await closed
    } finally {
      await server.close()
    }
  })

  test('a device that hangs up in the middle, or sends nonsense, fails its own handshake only', async (t) => {
    const server = await listen({ context: contextOf() })
    try {
      const quitter = connectTcp(server.port, '127.0.0.1')
      quitter.end(Buffer.from([22, 3, 1, 2, 0, 1]))
      quitter.on('error', () => {})
      quitter.resume()
      const first = await server.next()
      t.is(first instanceof ProxyError && first.code, 'ERR_HANDSHAKE_FAILED')

      const babbler = connectTcp(server.port, '127.0.0.1')
      babbler.on('error', () => {})
      babbler.write('GET / HTTP/1.1\r\n\r\n')
      const second = await server.next()
      t.is(second instanceof ProxyError && second.code, 'ERR_HANDSHAKE_FAILED')
      t.true((second as ProxyError).message.length > 0 && (second as ProxyError).message.length <= 200)
      t.regex((second as ProxyError).message, /^[\x20-\x7e]+$/)
    } finally {
      await server.close()
    }
  })

  test('no common version is told with the TLS library’s reason', async (t) => {
    const server = await listen({ context: contextOf(false, { tlsPolicy: 'IoTSecurityPolicy_TLS13_1_3_2022_10' }) })
    try {
      client(server.port, { maxVersion: 'TLSv1.2' })
      const end = await server.next()
      t.is(end instanceof ProxyError && end.code, 'ERR_HANDSHAKE_FAILED')
      t.regex((end as ProxyError).message, /protocol|version/i)
    } finally {
      await server.close()
    }
  })

  test('an abort ends it with the reason given', async (t) => {
    for (const [reason, code] of [
      [new ProxyError('ERR_INTERNAL', 'x'), 'ERR_INTERNAL'],
      [undefined, 'ERR_DRAINING'],
    ] as const) {
      const abort = new AbortController()
      const server = await listen({ context: contextOf(), signal: abort.signal })
      try {
        const device = connectTcp(server.port, '127.0.0.1')
        device.on('error', () => {})
        device.write(Buffer.from([22, 3, 1, 2, 0, 1]))
        setTimeout(() => abort.abort(reason), 50)
        const end = await server.next()
        t.is(end instanceof ProxyError && end.code, code)
        const socket = connectTcp(server.port, '127.0.0.1')
        socket.on('error', () => {})
        const again = await handshake(socket, {
          lift,
          context: contextOf(),
          requestCert: false,
          alpn: null,
          deadlineMs: 1_000,
          signal: abort.signal,
        }).catch((error: ProxyError) => error)
        t.is(again instanceof ProxyError && again.code, code)
        t.true(socket.destroyed)
      } finally {
        await server.close()
      }
    }
  })

  /** Not the server's CA: a client whose trust store holds its own issuer sends that along. */
  const fleet = createCa({ commonName: 'fleet' })

  const pki = () => {
    const device = issueDevice(fleet, { commonName: 'thing-1' })
    return { cert: device.chainPem, key: device.keyPem, device }
  }

  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    test(`${version}: the client certificate comes with its verdict, and only when asked for`, async (t) => {
      const { cert, key, device } = pki()
      const limits = { minVersion: version, maxVersion: version }
      const at = async (context: ReturnType<typeof contextOf>, requestCert: boolean, more: object) => {
        const server = await listen({ context, requestCert })
        try {
          const socket = client(server.port, { ...limits, ...more })
          const { peer } = secured(await server.next())
          socket.destroy()
          return peer
        } finally {
          await server.close()
        }
      }
      const judged = contextOf(true, { trustMode: 'ca', caPems: [fleet.certPem] })
      const known = await at(judged, true, { cert, key })
      t.is(known?.leaf.fingerprint256, device.cert.fingerprint256)
      t.is(known?.verifyError, null)
      // Bun goes on with the CA of the context.
      t.is(known?.chain.length, TLS_RUNTIME === 'boringssl' ? 2 : 1)
      const unjudged = await at(contextOf(true), true, { cert, key })
      t.is(unjudged?.leaf.fingerprint256, device.cert.fingerprint256)
      t.is(typeof unjudged?.verifyError, 'string')
      t.is(unjudged?.chain.length, 1)
      t.is(await at(contextOf(true), true, {}), null)
      t.is(await at(judged, true, {}), null)
      t.is(await at(contextOf(false), false, { cert, key }), null)
    })

    test(`${version}: a chain of ${MAX_CHAIN} is passed on whole, one of ${MAX_CHAIN + 1} is refused`, async (t) => {
      let issuer = ca
      const middles = Array.from({ length: MAX_CHAIN }, (_, depth) => {
        issuer = createCa({ commonName: `middle ${depth}`, issuer })
        return issuer
      })
      for (const [count, ok] of [
        [MAX_CHAIN, true],
        [MAX_CHAIN + 1, false],
      ] as const) {
        const device = issueDevice(middles[count - 2]!, { commonName: 'deep' })
        t.is(device.chainPem.split('-----BEGIN').length - 1, count)
        const server = await listen({ context: contextOf(true), requestCert: true })
        try {
          const socket = client(server.port, {
            minVersion: version,
            maxVersion: version,
            cert: device.chainPem,
            key: device.keyPem,
          })
          const end = await server.next()
          if (ok) t.is(secured(end).peer?.chain.length, count)
          else chainIsRefused(t, end)
          socket.destroy()
        } finally {
          await server.close()
        }
      }
    })
  }

  test('certificates that do not belong to one another count just the same', async (t) => {
    const { cert, key } = pki()
    const strangers = Array.from({ length: MAX_CHAIN }, (_, n) => createCa({ commonName: `stranger ${n}` }).certPem)
    const server = await listen({ context: contextOf(true), requestCert: true })
    try {
      client(server.port, { cert: cert + strangers.join(''), key })
      const end = await server.next()
      chainIsRefused(t, end)
    } finally {
      await server.close()
    }
  })

  const real = OPENSSL ? test : test.skip
  const reason = OPENSSL ? '' : ` (${NO_OPENSSL})`
  const count = (text: string, part: RegExp) => text.match(part)?.length ?? 0

  real(`a client is asked for its certificate only with requestCert${reason}`, async (t) => {
    for (const requestCert of [true, false]) {
      for (const flag of ['-tls1_2', '-tls1_3']) {
        const server = await listen({ context: contextOf(requestCert), requestCert })
        try {
          const { output } = await sClient({ port: server.port, args: [flag, '-msg'], until: /UP\n/ })
          t.is(/<<<.*CertificateRequest/.test(output), requestCert, flag)
        } finally {
          await server.close()
        }
      }
    }
  })

  for (const [what, args, alert, tlsPolicy] of [
    ['version', ['-tls1_2'], 70, 'IoTSecurityPolicy_TLS13_1_3_2022_10'],
    ['suite', ['-tls1_2', '-cipher', 'ECDHE-RSA-AES128-GCM-SHA256'], 40, 'IoTSecurityPolicy_TLS12_1_2_2022_10'],
  ] as const) {
    real(`no common ${what}: the client sees alert ${alert}${reason}`, async (t) => {
      const server = await listen({ context: contextOf(false, { tlsPolicy }) })
      try {
        const { output } = await sClient({ port: server.port, args })
        t.regex(output, new RegExp(`SSL alert number ${alert}\\n`))
        t.true((await server.next()) instanceof ProxyError)
      } finally {
        await server.close()
      }
    })
  }

  real(`TLS 1.2: a client may not renegotiate, not even once${reason}`, async (t) => {
    const server = await listen({ context: contextOf() })
    try {
      const { output } = await sClient({
        port: server.port,
        args: ['-tls1_2', '-msg'],
        say: { after: /UP\n/, text: 'R\n' },
        until: /(?:no.?renegotiation[\s\S]*error:)|closed\n?$/i,
      })
      t.regex(output, /RENEGOTIATING/)
      t.is(count(output, /<<<.*ServerHello(?!Done)/g), 1, output)
      t.is(count(output, /<<<.*Finished/g), 1)
    } finally {
      await server.close()
    }
  })

  real(`no compression, even when a client asks for it${reason}`, async (t) => {
    const server = await listen({ context: contextOf() })
    try {
      const { output } = await sClient({ port: server.port, args: ['-tls1_2', '-comp'], until: /UP\n/ })
      t.regex(output, /Compression: NONE/)
    } finally {
      await server.close()
    }
  })

  for (const version of ['1_2', '1_3']) {
    real(`TLS ${version}: no session is resumed, neither here nor at another domain${reason}`, async (t) => {
      const { cert, key } = pki()
      const files = tempFiles({ cert, key, session: '' })
      const { paths } = files
      const certificates = domainOptions().certificates
      const domains = createDomains({
        generation: 1,
        domains: [
          domainOptions({ trustMode: 'ca', caPems: [fleet.certPem] }),
          domainOptions({ serverNames: ['b.example'], certificates, trustMode: 'ca', caPems: [fleet.certPem] }),
        ],
      })
      const reused: boolean[] = []
      const servers = await Promise.all(
        ['a.example', 'b.example'].map((name) =>
          listen({ context: domains.find(name)!.context(true), requestCert: true }, (tls) => {
            reused.push(tls.isSessionReused())
            tls.write(Buffer.from('UP\n'))
            tls.on('data', () => {})
            tls.on('end', () => tls.end())
          }),
        ),
      )
      try {
        const go = (at: number, name: string, more: string[]) =>
          sClient({
            port: servers[at]!.port,
            args: [`-tls${version}`, '-servername', name, '-cert', paths.cert!, '-key', paths.key!, ...more],
            // A moment after the first line, so that tickets, if any, have been written to the file.
            say: { after: /UP\n/, text: 'Q\n' },
          })
        const first = await go(0, 'a.example', ['-sess_out', paths.session!])
        t.regex(first.output, /New, TLSv1/)
        // OpenSSL's 1.3 «tickets» under NO_TICKET are bare ids of 32 bytes, that is two lines, and nothing redeems them.
        const ticketLines =
          count(first.output, /^ {4}[0-9a-f]{4} - /gm) / Math.max(1, count(first.output, /TLS session ticket:/g))
        t.is(ticketLines, TLS_RUNTIME === 'openssl' && version === '1_3' ? 2 : 0, first.output)
        for (const [at, name] of [
          [0, 'a.example'],
          [1, 'b.example'],
          [1, 'a.example'],
          [0, 'b.example'],
        ] as const) {
          const { output } = await go(at, name, ['-sess_in', paths.session!])
          if (/Can't open session|unable to load/i.test(output) || !/UP\n/.test(output)) {
            // There was no session to save: nothing to resume with, which is what we want.
            t.regex(output, /session/i)
            continue
          }
          t.regex(output, /New, TLSv1/, output)
          t.notRegex(output, /Reused, /)
        }
        t.true(reused.length > 0)
        t.deepEqual(
          reused.filter((each) => each),
          [],
        )
        for (const server of servers) {
          for (const end of server.ended) {
            if (end instanceof Error) continue
            t.truthy(end.peer, 'every connection proved its certificate anew')
          }
        }
      } finally {
        for (const server of servers) await server.close()
        files.remove()
      }
    })
  }

  real(`early data is not accepted${reason}`, async (t) => {
    const files = tempFiles({ session: '', early: 'x'.repeat(100) })
    const server = await listen({ context: contextOf() })
    try {
      const args = ['-tls1_3', '-servername', 'a.example']
      const say = { after: /UP\n/, text: 'Q\n' }
      const first = await sClient({ port: server.port, args: [...args, '-sess_out', files.paths.session!], say })
      t.notRegex(first.output, /Max Early Data: [1-9]/)
      const more = ['-sess_in', files.paths.session!, '-early_data', files.paths.early!]
      const second = await sClient({ port: server.port, args: [...args, ...more], say })
      t.notRegex(second.output, /Early data was accepted/)
    } finally {
      await server.close()
      files.remove()
    }
  })
}
