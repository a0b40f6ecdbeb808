import { spawnSync } from 'node:child_process'
import test from 'ava'
import { freePort } from './ports.ts'

test('no port is given twice, in this process or in another that lives', async (t) => {
  const here = await Promise.all(Array.from({ length: 1_500 }, freePort))
  t.is(new Set(here).size, here.length)
  const script = `import { freePort } from ${JSON.stringify(new URL('./ports.ts', import.meta.url).href)}
console.log(JSON.stringify(await Promise.all(Array.from({ length: 1500 }, freePort))))`
  const beside = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  const there = JSON.parse(beside.stdout) as number[]
  t.is(there.length, 1_500, beside.stderr)
  // By chance alone some hundred would be the same.
  t.deepEqual(
    there.filter((port) => here.includes(port)),
    [],
  )
})
