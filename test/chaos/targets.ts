/** Where a row is shown: by the suite, by tests that stand elsewhere, or by a command of its own. */
export type Shown =
  | { readonly kind: 'chaos' }
  | { readonly kind: 'tests'; readonly command: string }
  | { readonly kind: 'command'; readonly command: string }

export interface Target {
  readonly number: number
  readonly test: string
  readonly injected: string
  readonly required: string
  readonly shown: Shown
}

const CHAOS: Shown = { kind: 'chaos' }

/** The target table, row by row: what is injected, and what must come of it. */
// biome-ignore format: a table is read down its columns
export const TARGETS: readonly Target[] = [
  { number: 1, test: 'ClientHello shapes', injected: '52 shapes, some 600 truncations, 5,000 flipped bits', required: 'good ones served, bad ones closed with the right alert within 5 s, no crash', shown: CHAOS },
  { number: 2, test: 'fuzz of the hello parser', injected: '1,000,000 mutations of real hellos, in process', required: 'never throws, never reads past, agrees with OpenSSL on all valid ones, steps bounded by a multiple of the length', shown: CHAOS },
  { number: 3, test: 'slow stages', injected: '500 sockets per stage that drip: hello, handshake, CONNECT, HTTP head, body, WebSocket frame', required: 'all closed by the deadline of the stage ± 1 s', shown: CHAOS },
  { number: 4, test: 'handshake flood', injected: '3,000 full and half handshakes without a pause', required: 'shed is counted, none hangs, the good client lives', shown: CHAOS },
  { number: 5, test: 'resumption matrix', injected: 'domains A, B × TLS 1.2, 1.3 × same name, other name, revoked, CA removed, restart, key rotation', required: 'B never sees the identity of A; resumption under the same name works', shown: CHAOS },
  { number: 6, test: 'TLS profile', injected: 'sslscan and testssl', required: 'only 1.2 and 1.3 with AEAD in the default policy, no client renegotiation, no compression', shown: { kind: 'command', command: 'sslscan HOST:8883; testssl HOST:8883' } },
  { number: 7, test: 'desync and header abuse', injected: '100 and more forms, each hiding a POST', required: 'no hidden request is executed, no second answer after an error', shown: CHAOS },
  { number: 8, test: 'identity headers', injected: '30 spoofed names × plain, underscore, duplicate, named in Connection, folded', required: 'the backend sees only ours', shown: CHAOS },
  { number: 9, test: 'WebSocket abuse', injected: '30 and more abuses of mask, RSV, opcode, length and fragments; 200,000 tiny fragments', required: 'legal served, illegal closed, at most 50 MB more', shown: CHAOS },
  { number: 10, test: 'MQTT differential', injected: 'some 1,000 packet sequences, at the broker and through the door', required: 'never laxer than the broker; what is stricter is on a written list', shown: CHAOS },
  { number: 11, test: 'fuzz of the MQTT parsers', injected: '2,000,000 packets in process, 30 s through the door', required: 'no throw, no buffer without a bound, the broker keeps answering', shown: CHAOS },
  { number: 12, test: 'MQTT conformance', injected: 'sessions, wills, retained, keep alive, flow control, properties, both versions', required: 'nothing lost against the same client straight at the broker', shown: CHAOS },
  { number: 13, test: 'length bombs', injected: '200 connections: 256 MB packet, 4 GB frame, 1 GB chunk, 64 KB topic, 100,000 user properties, 10 MB token', required: 'closed at the limit, at most 64 MB more', shown: CHAOS },
  { number: 14, test: 'CONNECT storm', injected: '2,000 devices come back at once after a restart of the broker', required: 'all back in 20 s, authorizer calls bounded, no CONNACK lost', shown: CHAOS },
  { number: 15, test: 'client-id fight', injected: '2 × 50 identities on 50 client ids', required: 'take-over limited in rate, right reason code, no leak', shown: CHAOS },
  { number: 16, test: 'slow consumers', injected: '200 subscribers stop reading under 20 MB/s', required: 'memory bounded, the others keep 99 % of their rate', shown: CHAOS },
  { number: 17, test: 'half-open and RST', injected: '1,000 peers vanish, 5,000 RST', required: 'all reaped by 1.5 × keep alive, descriptors back', shown: CHAOS },
  { number: 18, test: 'broker faults', injected: '9 modes × 50 clients', required: 'right CONNACK, deadline kept, recovery within 2 s of the broker', shown: CHAOS },
  { number: 19, test: 'authorizer faults', injected: '12 faults × certificate and authorizer, JWT, WebSocket', required: 'none accepted, deadline 5 s, circuit opens and closes', shown: CHAOS },
  { number: 20, test: 'descriptors exhausted', injected: '256 descriptors, 400 clients', required: 'no crash, no spin, recovers in 2 s', shown: CHAOS },
  { number: 21, test: 'memory limit', injected: 'a limit of memory and a mixed attack', required: 'sheds before it runs out, else ends at once and not with 0', shown: CHAOS },
  { number: 22, test: 'stalled event loop', injected: '500 ms of work at once; 50 certificates of RSA 4096', required: 'the lag is in the metrics, readiness flips, no false cut by keep alive', shown: CHAOS },
  { number: 23, test: 'clock', injected: '± 10 min, a step while running', required: 'SigV4 refuses and accepts rightly, timers unaffected', shown: CHAOS },
  { number: 24, test: 'certificate rotation', injected: 'server and client CA files swapped 20 times under 500 connections, one pair mismatched', required: 'no drop, the mismatch refused and counted', shown: CHAOS },
  { number: 25, test: 'bad reload', injected: '40 broken configurations', required: 'the old one stays, the message names file and field', shown: CHAOS },
  { number: 26, test: 'SIGTERM', injected: '1,000 MQTT, 100 WebSocket, 50 HTTP connections', required: 'exit 0 in time, DISCONNECT to all of MQTT 5, nothing acknowledged is lost', shown: CHAOS },
  { number: 27, test: 'secrets', injected: '20 planted secrets in every input', required: 'none in logs, metrics, errors', shown: CHAOS },
  { number: 28, test: 'timing', injected: '20,000 wrong MACs with 0 to 31 right bytes', required: 'Welch t < 4.5 (informational)', shown: CHAOS },
  { number: 29, test: 'SigV4', injected: 'the vectors of the specification and their mutations', required: 'all accepted, none accepted', shown: CHAOS },
  { number: 30, test: 'real clients', injected: 'AWS SDKs, MQTT.js, mosquitto_pub and _sub, curl, s_client', required: 'all pass unmodified', shown: CHAOS },
  { number: 31, test: 'soak', injected: '5,000 connections, churn 20/s, faults from a seed', required: 'heap slope < 1 MB/h, p99 flat, every message of QoS 1 received or reported', shown: { kind: 'command', command: 'npm run soak -- --minutes 60' } },
]
