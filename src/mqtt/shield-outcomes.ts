/** Why a session whose broker went was not held, or what became of one that was. */
export const SHIELD_OUTCOMES = [
  'resumed',
  'expired',
  'session_gone',
  'refused',
  'changed',
  'alone',
  'ended',
  'qos2',
  'unkept',
  'mid_packet',
  'no_session',
  'enhanced_auth',
  'flapping',
] as const
export type ShieldOutcome = (typeof SHIELD_OUTCOMES)[number]

/** What an attempt to come back came to; `later`: the broker is not there yet. */
export type Attempted = 'resumed' | 'later' | Exclude<ShieldOutcome, 'resumed'>
