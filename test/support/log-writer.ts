import { createLog } from '../../src/control/log.ts'

// Writes to its standard output and ends: `exit` at once, `outlive` after its reader had time to go away.

const log = createLog({ level: 'info', format: 'auto' })
if (process.argv[2] === 'exit') {
  for (let line = 0; line < 100; line++) log.info({ line }, 'one of a hundred')
  log.flush()
  process.exit(3)
}
let left = 50
const timer = setInterval(() => {
  log.info({ left }, 'still here')
  if (--left > 0) return
  clearInterval(timer)
  process.exit(0)
}, 10)
