/**
 * Captures ClientHellos of real clients on loopback into test/fixtures/hellos/<client>.bin.
 *
 *   node test/support/hello-capture.ts <folder> [client…]
 *
 * It keeps what a client sends until it pauses for 300 ms, then closes; it does not look into it, so a fixture
 * owes nothing to the parser that it tests. Clients that are not installed are reported and skipped.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const NAME = 'things.example.com'
const scripts = mkdtempSync(join(tmpdir(), 'hello-'))

function script(file: string, text: string): string {
  const path = join(scripts, file)
  writeFileSync(path, text)
  return path
}

const NODE = `require('tls').connect({ host: '127.0.0.1', port: +process.argv[2], servername: '${NAME}',
  ALPNProtocols: ['x-amzn-mqtt-ca', 'mqtt'], rejectUnauthorized: false }).on('error', () => {})`

const GO = `package main
import ("crypto/tls"; "os")
func main() {
  tls.Dial("tcp", "127.0.0.1:" + os.Args[1], &tls.Config{ServerName: "${NAME}", NextProtos: []string{"mqtt"}, InsecureSkipVerify: true})
}`

const JAVA = `import javax.net.ssl.*; import java.util.*; import java.net.*;
public class Hello { public static void main(String[] a) throws Exception {
  Socket plain = new Socket("127.0.0.1", Integer.parseInt(a[0]));
  SSLSocket s = (SSLSocket) ((SSLSocketFactory) SSLSocketFactory.getDefault()).createSocket(plain, "${NAME}", Integer.parseInt(a[0]), true);
  SSLParameters p = s.getSSLParameters();
  p.setApplicationProtocols(new String[] {"mqtt"});
  s.setSSLParameters(p);
  try { s.startHandshake(); } catch (Exception e) {}
} }`

const PYTHON = `import socket, ssl, sys
context = ssl.create_default_context()
context.set_alpn_protocols(['mqtt'])
try: context.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))), server_hostname='${NAME}')
except Exception: pass`

const CHROME = `import sys
from curl_cffi import requests, CurlOpt
try: requests.get('https://${NAME}:%s/' % sys.argv[1], impersonate='chrome', verify=False, timeout=5,
  curl_options={CurlOpt.RESOLVE: ['${NAME}:%s:127.0.0.1' % sys.argv[1]]})
except Exception: pass`

const env = process.env
const S_CLIENT = 'openssl s_client -connect 127.0.0.1:PORT'

/** Each is run by the shell with PORT replaced. */
const CLIENTS: Readonly<Record<string, string>> = {
  'openssl-3.0': `${S_CLIENT} -servername ${NAME} -alpn x-amzn-mqtt-ca,mqtt`,
  'openssl-3.0-tls12': `${S_CLIENT} -servername Things.Example.COM -tls1_2`,
  'openssl-3.0-no-name': `${S_CLIENT} -noservername`,
  'openssl-3.0-fragmented': `${S_CLIENT} -servername ${NAME} -max_send_frag 512 -split_send_frag 512 -alpn $(printf 'device-protocol-%s,' $(seq 100 160))mqtt`,
  curl: `curl -sk --resolve ${NAME}:PORT:127.0.0.1 https://${NAME}:PORT/`,
  mosquitto: 'mosquitto_pub -h localhost -p PORT --capath /etc/ssl/certs --tls-alpn x-amzn-mqtt-ca -t t -m m',
  'node-20': `${env.NODE20 ?? 'node'} ${script('hello.cjs', NODE)} PORT`,
  'node-26': `${env.NODE26 ?? 'npx -y -p node@26 node'} ${join(scripts, 'hello.cjs')} PORT`,
  bun: `npx bun ${join(scripts, 'hello.cjs')} PORT`,
  python: `python3 ${script('hello.py', PYTHON)} PORT`,
  go: `go run ${script('hello.go', GO)} PORT`,
  java: `java ${script('Hello.java', JAVA)} PORT`,
  gnutls: `gnutls-cli --insecure --sni-hostname ${NAME} --alpn mqtt -p PORT 127.0.0.1`,
  wget: 'wget -q -t1 --no-check-certificate -O- https://localhost:PORT/',
  nss: `tstclnt -h 127.0.0.1 -p PORT -a ${NAME} -D -o`,
  'nss-ech-grease': `tstclnt -h 127.0.0.1 -p PORT -a ${NAME} -D -o -i 50`,
  'chrome-by-curl': `${env.CURL_CFFI_PYTHON ?? 'python3'} ${script('chrome.py', CHROME)} PORT`,
}

async function capture(command: string): Promise<Buffer> {
  const chunks: Buffer[] = []
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.setTimeout(10_000, () => socket.destroy())
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      socket.setTimeout(300)
    })
    socket.on('close', () => server.close())
  }).listen(0, '127.0.0.1')
  server.maxConnections = 1
  await new Promise((resolve) => server.once('listening', resolve))
  const port = String((server.address() as AddressInfo).port)
  const client = spawn('sh', ['-c', command.replaceAll('PORT', port)], { stdio: ['pipe', 'ignore', 'ignore'] })
  const closed = new Promise((resolve) => server.once('close', resolve))
  const exited = new Promise((resolve) => client.once('close', resolve))
  const limit = AbortSignal.timeout(60_000)
  await Promise.race([closed, exited, new Promise((resolve) => limit.addEventListener('abort', resolve))])
  client.kill()
  server.close()
  return Buffer.concat(chunks)
}

const [folder = '.', ...only] = process.argv.slice(2)
for (const [client, command] of Object.entries(CLIENTS)) {
  if (only.length > 0 && !only.includes(client)) continue
  const bytes = await capture(command)
  if (bytes.length > 0) writeFileSync(join(folder, `${client}.bin`), bytes)
  console.log(`${client}: ${bytes.length} bytes`)
}
process.exit(0)
