import { z } from 'zod'
import { duration, expected, orNull, section, toMs } from './forms.ts'

const REFERENCE = 'a server such as "eu2.example.com:8883", or several separated by spaces'

/** MQTT 5.0 §4.11: hosts with or without a port, separated by spaces. */
const isReference = (text: string): boolean => /^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/.test(text)

export const DRAIN = section({
  grace: duration('0s')
    .default('30s')
    .transform(toMs)
    .describe(
      'How long sessions may go on after the stop signal, on a drained server, and in a worker that is replaced.',
    ),
  settle: duration('0s')
    .default('0s')
    .transform(toMs)
    .describe(
      'From /readyz saying 503 to the end of accepting, for load balancers to see it. It comes before `grace`.',
    ),
  pace: z
    .number(expected('farewells per second such as 200'))
    .positive('expected more than 0')
    .max(1_000_000, 'expected at most 1000000')
    .optional()
    .transform(orNull)
    .describe(
      'Sessions per second that are told to go, never so few that some would not be. Absent: spread over `grace`.',
    ),
  serverReference: z
    .string(expected(REFERENCE))
    .max(512, 'expected at most 512 characters')
    .refine(isReference, `expected ${REFERENCE}`)
    .optional()
    .transform(orNull)
    .describe(
      'Where devices of MQTT 5 are sent at a shutdown (0x9C, Server Reference). Absent: 0x8B, they come back here.',
    ),
})
