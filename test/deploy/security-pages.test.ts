// What the pages about security claim can be followed: tests that they name are there, settings and metrics exist.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { z } from 'zod'
import { SETTINGS } from '../../src/config/schema.ts'
import { METRICS } from '../../src/control/metric-table.ts'
import { FAILURES, type FailureCode, reasonOf } from '../../src/errors.ts'

const ROOT = join(import.meta.dirname, '../..')
const PAGES = ['docs/SECURITY.md', 'docs/hardening.md'] as const
const textOf = (page: string): string => readFileSync(join(ROOT, page), 'utf8')
const wordsOf = (page: string): readonly string[] => [...textOf(page).matchAll(/`([^`\n]+)`/g)].map(([, word]) => word!)

/** Every name of a setting, at whatever depth. */
const settingNames = new Set(
  [
    ...JSON.stringify(z.toJSONSchema(SETTINGS, { io: 'input', unrepresentable: 'any' })).matchAll(
      /"([A-Za-z]\w*)":\{/g,
    ),
  ].map(([, name]) => name!),
)
const SECTIONS = [
  'listeners',
  'domains',
  'backends',
  'registries',
  'limits',
  'metrics',
  'admin',
  'ticketKeys',
  'clientTrust',
  'clientId',
]

for (const page of PAGES) {
  test(`${page}: every test and file that it names is there`, (t) => {
    const named = wordsOf(page).filter((word) => /^(?:test|docs|src)\/[\w./-]+$/.test(word))
    t.deepEqual(
      named.filter((file) => !existsSync(join(ROOT, file))),
      [],
    )
    const links = [...textOf(page).matchAll(/\]\(([^)#]+)\)/g)].map(([, link]) => link!)
    t.deepEqual(
      links.filter((link) => !existsSync(join(ROOT, 'docs', link))),
      [],
    )
  })

  test(`${page}: every setting that it names is one`, (t) => {
    const paths = wordsOf(page).filter((word) =>
      new RegExp(`^(?:${SECTIONS.join('|')})(?:\\[\\])?\\.[\\w.<>[\\]]+`).test(word),
    )
    const steps = paths.flatMap((path) =>
      path
        .split(':')[0]!
        .split('.')
        .map((step) => step.replace('[]', '')),
    )
    t.deepEqual(
      steps.filter((step) => step !== '<name>' && !settingNames.has(step)),
      [],
    )
    t.true(paths.length > 0)
  })

  test(`${page}: every metric that it names is one`, (t) => {
    const named = [...textOf(page).matchAll(/brokergate_(\w+)/g)].map(([, name]) => name!)
    t.deepEqual(
      named.filter((name) => !Object.hasOwn(METRICS, name)),
      [],
    )
  })
}

test('the reasons that the list names for logs are reasons', (t) => {
  const reasons = new Set(Object.keys(FAILURES).map((code) => reasonOf(code as FailureCode)))
  const named = [
    ...textOf('docs/hardening.md').matchAll(/((?:`[a-z_]+`,? (?:and )?)+)in (?:the log|`brokergate)/g),
  ].flatMap(([, list]) => [...list!.matchAll(/`([a-z_]+)`/g)].map(([, reason]) => reason!))
  t.true(named.length >= 6)
  t.deepEqual(
    named.filter((reason) => !reasons.has(reason)),
    [],
  )
})

test('what promises are kept by is named with each promise', (t) => {
  const [, promises = ''] = /^## Promises\n(.*?)^## /ms.exec(textOf('docs/SECURITY.md')) ?? []
  const items = promises.split(/^\d+\. /m).slice(1)
  t.true(items.length >= 8)
  // The fifth says what is no secret.
  for (const item of items.filter((text) => !text.startsWith('**What is no secret')))
    t.regex(item, /`test\/\S+\.test\.ts`/)
})
