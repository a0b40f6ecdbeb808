import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { referencePages } from '../../src/control/reference.ts'

const DOCS = join(import.meta.dirname, '..', '..', 'docs')

for (const [name, text] of Object.entries(referencePages())) {
  test(`docs/${name} tells what the source says`, (t) => {
    const path = join(DOCS, name)
    t.true(
      existsSync(path) && readFileSync(path, 'utf8') === text,
      `docs/${name} is stale: run \`npm run reference\` and commit the result`,
    )
  })

  test(`docs/${name} has as many cells in every row as in its head`, (t) => {
    const widths = text
      .split('\n')
      .filter((line) => line.startsWith('|'))
      .map((line) => line.replaceAll('\\|', '').split('|').length)
    t.is(new Set(widths).size, 1)
  })
}
