import test from 'ava'
import { Generations, type Mortal } from '../../src/generation/generations.ts'

function generation(number: number, told: string[], close: () => Promise<void> = async () => {}): Mortal {
  return {
    number,
    retire: () => void told.push(`retire ${number}`),
    close: () => {
      told.push(`close ${number}`)
      return close()
    },
  }
}

function begin() {
  const told: string[] = []
  const live: (readonly number[])[] = []
  const failures: unknown[] = []
  const generations = new Generations(generation(1, told), {
    changed: (numbers) => void live.push(numbers),
    failed: (error) => void failures.push(error),
  })
  return { told, live, failures, generations, next: (number: number) => generation(number, told) }
}

test('a connection is held by the generation that let it in, and new ones by the newest', (t) => {
  const { generations, next } = begin()
  const one = generations.enter()
  generations.replace(next(2))
  const two = generations.enter()
  t.deepEqual([one.generation.number, two.generation.number], [1, 2])
  t.is(generations.current.number, 2)
})

test('a former generation lives as long as the last of its connections', (t) => {
  const { generations, next, told, live } = begin()
  const [one, two] = [generations.enter(), generations.enter()]
  generations.replace(next(2))
  t.deepEqual(told, ['retire 1'])
  one.leave()
  t.deepEqual(generations.live, [1, 2])
  two.leave()
  t.deepEqual(told, ['retire 1', 'close 1'])
  t.deepEqual(live, [[1], [1, 2], [2]])
})

test('one that nobody came to ends when it is replaced', (t) => {
  const { generations, next, told } = begin()
  generations.replace(next(2))
  t.deepEqual(told, ['retire 1', 'close 1'])
  t.deepEqual(generations.live, [2])
})

test('the generation in force goes on without connections', (t) => {
  const { generations, told } = begin()
  generations.enter().leave()
  t.deepEqual(told, [])
  t.deepEqual(generations.live, [1])
})

test('a connection that leaves twice is counted once', (t) => {
  const { generations, next, told } = begin()
  const [one] = [generations.enter(), generations.enter()]
  one.leave()
  one.leave()
  generations.replace(next(2))
  t.deepEqual(told, ['retire 1'])
})

test('one that cannot be closed in good order is told, and is gone', async (t) => {
  const { generations, failures, told } = begin()
  generations.replace(generation(2, told, () => Promise.reject(new Error('stuck'))))
  generations.replace(generation(3, told))
  await generations.close()
  t.deepEqual(
    failures.map((error) => (error as Error).message),
    ['stuck'],
  )
  t.deepEqual(generations.live, [])
})

test('at the end all are closed, the newest first, whoever is left', async (t) => {
  const { generations, next, told } = begin()
  const one = generations.enter()
  generations.replace(next(2))
  generations.enter()
  await generations.close()
  one.leave()
  t.deepEqual(told, ['retire 1', 'close 2', 'close 1'])
})
