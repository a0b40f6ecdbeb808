import { relative, resolve } from 'node:path'
import type { Print } from './check.ts'
import { writeStarter } from './starter.ts'

/** `brokergate init DIR`: a folder to start from. Exit code 0, or 1 when something else is in it. */
export function init(dir: string, print: Print): number {
  const folder = resolve(dir)
  const starter = writeStarter(folder)
  if (starter.kind === 'foreign') {
    print(`${starter.reason}; nothing was written`)
    return 1
  }
  for (const name of starter.written) print(`wrote ${name}`)
  if (starter.written.length === 0) print('everything was there already; nothing was written')
  print(`start it: brokergate run -c ${relative(process.cwd(), starter.configFile) || starter.configFile}`)
  return 0
}
