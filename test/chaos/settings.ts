/**
 * For rows about something else: on a machine that is busy with other work the event loop is late, and the door would
 * rightly let devices in one by one. A line of the configuration.
 */
export const PATIENT = 'shedding: { lag: { trickle: 5s, refuse: 10s } }'
