import { z } from 'zod'
import { SETTINGS } from '../config/schema.ts'
import type { Print } from './check.ts'

/** `brokergate schema`: the JSON Schema of the configuration, for editors. */
export function schema(print: Print): number {
  print(JSON.stringify(z.toJSONSchema(SETTINGS, { io: 'input' }), null, 2))
  return 0
}
