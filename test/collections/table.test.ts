import test from 'ava'
import { Table } from '../../src/collections/table.ts'
import { grownByChurn } from '../support/churn.ts'
import { randomFrom } from '../support/random.ts'

const ODD = [
  '',
  '__proto__',
  'constructor',
  'toString',
  '0',
  '4294967295',
  '-1',
  '.',
  '..',
  'ä',
  '\ud800',
  'a\nb',
  'a'.repeat(70_000),
]

test('a table is a map of names, whatever they are', (t) => {
  const random = randomFrom(13)
  const names = [...ODD, ...Array.from({ length: 40 }, (_, at) => String(at * 37))]
  const table = new Table<number>()
  const model = new Map<string, number>()
  for (let step = 0; step < 20_000; step++) {
    const name = names[random(names.length)]!
    if (random(2) === 0) {
      table.set(name, step)
      model.set(name, step)
    } else t.is(table.delete(name), model.delete(name))
    t.is(table.get(name), model.get(name))
    t.is(table.size, model.size)
    if (step % 500 === 0) {
      t.deepEqual([...table], [...model])
    }
  }
})

test('whoever is looked at may be deleted', (t) => {
  const table = new Table<number>()
  for (const name of ['a', 'b', 'c']) table.set(name, 1)
  const seen: string[] = []
  for (const [name] of table) {
    seen.push(name)
    table.delete('a')
    table.delete('b')
  }
  t.deepEqual(seen, ['a', 'b', 'c'])
  t.deepEqual([...table], [['c', 1]])
})

test('what was deleted from a table is young garbage', async (t) => {
  const table = new Table<object>()
  let count = 0
  const grown = await grownByChurn((thing) => {
    table.set(`device-${count}`, thing)
    table.delete(`device-${count++ - 8}`)
  })
  t.true(grown < 0.2, `${grown} of what had left was still there`)
})
