import test from 'ava'
import { processWarnings } from '../../src/cli/process-warnings.ts'

test('a process of root is warned of, and no other', (t) => {
  t.regex(processWarnings(0).join('\n'), /^runs as root/)
  t.deepEqual(processWarnings(10_001), [])
  // Windows has no such number.
  t.deepEqual(processWarnings(null), [])
})
