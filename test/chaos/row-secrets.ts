import {
  ACCESS_KEY,
  ca,
  device,
  localhostOnly,
  powerless,
  serverCertificate,
  stranger,
  TEMPORARY_KEY,
} from '../support/gateway.ts'
import { leakText, PlantedSecrets } from '../support/secrets.ts'

/** Row 27: what the log and the metrics of no row may hold. The keys of the gateway, and what its devices send. */
const planted = new PlantedSecrets()
planted.keep('secret of an access key', ACCESS_KEY.secret)
planted.keep('secret of a temporary access key', TEMPORARY_KEY.secret)
planted.keep('session token', TEMPORARY_KEY.token)
for (const [name, { keyPem }] of Object.entries({
  ca,
  serverCertificate,
  localhostOnly,
  device,
  powerless,
  stranger,
})) {
  planted.keepKey(`private key: ${name}`, keyPem)
}

/** In every CONNECT of a fleet that has no other. */
export const PLANTED_PASSWORD = planted.plant('password of CONNECT')
/** In every payload that is filled up. */
export const PLANTED_PAYLOAD = planted.plant('payload')

export interface Scanned {
  readonly bytes: number
  readonly secrets: number
  /** One line for each that was found. */
  readonly leaks: string
}

export function scanForSecrets(text: string): Scanned {
  return { bytes: text.length, secrets: planted.names.length, leaks: leakText(planted.scan(text)) }
}
