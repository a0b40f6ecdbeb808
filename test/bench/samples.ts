import type { Measurement } from '../../bench/harness/bench.ts'
import type { Run } from '../../bench/harness/machine.ts'
import type { Answer } from '../../bench/harness/summary.ts'

export const measured = (what: Omit<Measurement, 'type'>): Measurement => ({ type: 'measurement', ...what })

export const runOf = (answers: readonly Answer[]): Run => ({
  date: '2030-01-02 03:04',
  commit: '0123456',
  cpu: 'A CPU',
  cores: 2,
  memoryGb: 8,
  kernel: '6.1',
  os: 'Linux',
  pinned: true,
  loadBefore: 0,
  load: 'Bun 1',
  smoke: false,
  rounds: 5,
  broker: 'sink',
  peers: [{ name: 'haproxy', version: '2.6', about: 'as it is' }],
  seconds: 10,
  answers,
})
