import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { startProcess } from '../harness/proc.ts'
import { cannotLookIntoMqtt } from './haproxy.ts'
import { write } from './materials.ts'
import { freePort, type Job, type PeerKind, relayPeer } from './peer.ts'

/** Where Debian's libnginx-mod-stream puts it; other builds have it inside. */
const MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so'

export const NGINX: PeerKind = {
  name: 'nginx',
  about: '`stream`, one worker, no log, no session cache; it verifies certificates after the handshake',
  comesWith: 'apt-get install nginx libnginx-mod-stream',
  version() {
    const { status, stderr } = spawnSync('nginx', ['-V'], { encoding: 'utf8' })
    if (status !== 0) return null
    if (!existsSync(MODULE) && !/--with-stream(\s|$)/.test(stderr)) return null
    return /nginx version: nginx\/(\S+)/.exec(stderr)?.[1] ?? 'nginx'
  },
  cannot(setup) {
    if (setup.strictSni) return 'cannot refuse a ClientHello without server name before it does key work'
    return cannotLookIntoMqtt(setup)
  },
  async start(job) {
    const { folder } = job
    const port = await freePort()
    const file = write(folder, 'nginx.conf', configuration(job, port))
    return relayPeer(this, port, { drain: 'SIGQUIT', reload: 'SIGHUP' }, () =>
      startProcess('nginx', ['-p', folder, '-c', file, '-e', join(folder, 'nginx.err')], {
        cwd: folder,
        cores: job.cores,
        logFile: join(folder, 'nginx.out'),
      }),
    )
  },
}

function configuration({ materials, setup, brokerPort, folder }: Job, port: number): string {
  const at = (name: string) => join(materials.folder, name)
  const load = existsSync(MODULE) ? `load_module ${MODULE};\n` : ''
  return `${load}daemon off;
${process.getuid?.() === 0 ? 'user root;\n' : ''}pid ${join(folder, 'nginx.pid')};
worker_processes ${setup.workers};
worker_rlimit_nofile 20000;
worker_shutdown_timeout ${Math.max(1, setup.graceSeconds)}s;
events { worker_connections 19500; }
stream {
  upstream sink { server 127.0.0.1:${brokerPort}; }
  server {
    listen 127.0.0.1:${port} ssl backlog=4096;
    tcp_nodelay on;
    ssl_certificate ${at('server.pem')};
    ssl_certificate_key ${at('server.key')};
    ssl_client_certificate ${at('ca.pem')};
    ssl_verify_client on;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_session_cache off;
    ssl_session_tickets ${setup.resumption ? 'on' : 'off'};
    proxy_timeout 1h;
    proxy_pass sink;
  }
}
`
}
