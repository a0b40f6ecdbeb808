import test from 'ava'
import { FAILURES, type FailureCode } from '../../src/errors.ts'
import { farewell, refusal } from '../../src/mqtt/reason.ts'

const CODES = Object.keys(FAILURES) as FailureCode[]
const octets = (packet: Buffer | null) => packet?.toString('hex') ?? 'silence'

const refuses = test.macro({
  exec(t, code: FailureCode, on4: string, on5: string) {
    t.deepEqual([octets(refusal(code, 4)), octets(refusal(code, 5))], [on4, on5])
  },
  title: (_, code: FailureCode, on4: string, on5: string) => `${code} is refused by ${on4} on 3.1.1 and ${on5} on 5`,
})

test(refuses, 'ERR_BACKEND_REFUSED', '20020003', '2003008800')
test(refuses, 'ERR_MODE_UNSERVED', '20020003', '2003008300')
test(refuses, 'ERR_PROTOCOL_VERSION', '20020001', '2003008400')
test(refuses, 'ERR_CLIENT_ID_INVALID', '20020002', '2003008500')
test(refuses, 'ERR_INTERNAL', '20020003', '2003008000')
test(refuses, 'ERR_CONNECT_MALFORMED', 'silence', '2003008100')
test(refuses, 'ERR_CONNECT_OVERSIZED', 'silence', '2003009500')
test(refuses, 'ERR_NOT_MQTT', 'silence', 'silence')
test(refuses, 'ERR_CERTIFICATE_REVOKED', 'silence', 'silence')

const parts = test.macro({
  exec(t, code: FailureCode, on5: string) {
    t.deepEqual([octets(farewell(code, 4)), octets(farewell(code, 5))], ['silence', on5])
  },
  title: (_, code: FailureCode, on5: string) => `a session ended by ${code} hears ${on5} on 5 and nothing on 3.1.1`,
})

test(parts, 'ERR_KEEP_ALIVE_TIMEOUT', 'e0028d00')
test(parts, 'ERR_DRAINING', 'e0028b00')
test(parts, 'ERR_PACKET_UNEXPECTED', 'e0028200')
test(parts, 'ERR_PACKET_TOO_LARGE', 'e0029500')
test(parts, 'ERR_BACKEND_LOST', 'e0028000')
test(parts, 'ERR_CERTIFICATE_REVOKED', 'e0028700')
test(parts, 'ERR_CERTIFICATE_ABSENT', 'silence')

test('no refusal says success, and 3.1.1 is told only its return codes 1 to 5 [MQTT-3.2.2-6]', (t) => {
  for (const code of CODES) {
    const on4 = refusal(code, 4)
    if (on4 !== null) t.true(on4.length === 4 && on4[3]! >= 1 && on4[3]! <= 5, code)
    const on5 = refusal(code, 5)
    if (on5 !== null) t.true(on5.length === 5 && on5[3]! >= 0x80, code)
  }
})
