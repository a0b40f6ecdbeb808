import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import test from 'ava'

/** Left may take values from right. Types may cross anywhere: `import type` leaves nothing at run time. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  'main.ts': ['cli'],
  cli: ['start.ts', 'assemble.ts', 'auth', 'config', 'control', 'registry', 'backend', 'policy', 'store'],
  'start.ts': ['assemble.ts', 'generation', 'proxy.ts', 'auth', 'https', 'listener', 'mqtt', 'tls'],
  'assemble.ts': ['generation', 'plugins.ts', 'registry', 'tls'],
  generation: ['plugins.ts', 'auth', 'https', 'listener', 'mqtt', 'policy', 'registry', 'tls', 'wss', 'file-rights.ts'],
  'proxy.ts': ['listener', 'tls'],
  'plugins.ts': ['auth', 'backend', 'events.ts'],
  auth: ['policy', 'registry'],
  backend: ['wss', 'lifted'],
  listener: ['lifted', 'relay.ts'],
  tls: ['lifted', 'relay.ts'],
  registry: ['policy', 'file-rights.ts'],
  mqtt: ['events.ts', 'policy', 'relay.ts'],
  // The table of limits, from which their settings and their reference page are made.
  config: ['mqtt', 'file-rights.ts'],
  control: ['mqtt'],
  // Which topics a device may publish to is one rule, whatever it publishes with.
  https: ['policy', 'mqtt'],
}

const areaOf = (path: string): string => path.split('/')[0]!

for (const file of globSync('src/**/*.ts').sort()) {
  const area = areaOf(relative('src', file))
  test(`${file} takes values only from where its area may`, (t) => {
    const text = readFileSync(file, 'utf8')
    const targets = Array.from(
      [
        ...text.matchAll(/^(?:import|export) (?!type\b)([^']*?) ?from '(\.[^']+)'/gm),
        // Late ones.
        ...text.matchAll(/\bawait (import)\('(\.[^']+)'/g),
      ],
      ([, names, from]) => ({ names: names!, area: areaOf(relative('src', join(dirname(file), from!))) }),
    )
      // `import { type A, type B } from …` leaves nothing either.
      .filter(({ names }) => !/^\{(?:\s*type [^,}]+,?)+\s*\}$/.test(names.trim()))
      .map((target) => target.area)
    const allowed = new Set([area, 'errors.ts', 'collections', ...(MAY_IMPORT[area] ?? [])])
    t.deepEqual(
      targets.filter((target) => !allowed.has(target)),
      [],
    )
  })

  test(`${file} uses no name of one runtime alone`, (t) => {
    const text = readFileSync(file, 'utf8')
    t.notRegex(text, /\bBun\.|from ['"]bun[:'"]|\bDeno\./)
    // The runtime's own sockets are the business of one folder.
    if (!file.startsWith('src/lifted/')) t.notRegex(text, /\b_handle\b|\bupgradeTLS\b/)
  })
}
