import test from 'ava'
import { Portions } from '../../src/listener/portions.ts'

/** Turns of the event loop by hand. */
function portionsOf(perTurn: number) {
  const soon: (() => void)[] = []
  const portions = new Portions(perTurn, (work) => soon.push(work))
  const begun: number[] = []
  const come = (name: number, source: { destroyed?: boolean } = {}) => {
    const turn = portions.next(source)
    if (turn === null) begun.push(name)
    else void turn.then(() => begun.push(name))
  }
  const turn = async () => {
    for (const work of soon.splice(0)) work()
    await Promise.resolve()
    await Promise.resolve()
  }
  return { come, turn, begun, soon }
}

test('so many begin in a turn, and the others in their order in the turns after', async (t) => {
  const { come, turn, begun, soon } = portionsOf(2)
  for (let name = 0; name < 5; name++) come(name)
  t.deepEqual(begun, [0, 1])
  await turn()
  t.deepEqual(begun, [0, 1, 2, 3])
  // Who comes now is behind those who wait.
  come(5)
  come(6)
  t.deepEqual(begun, [0, 1, 2, 3])
  await turn()
  t.deepEqual(begun, [0, 1, 2, 3, 4, 5])
  await turn()
  t.deepEqual(begun, [0, 1, 2, 3, 4, 5, 6])
  await turn()
  await turn()
  t.is(soon.length, 0, 'nothing is done while nobody comes')
})

test('a turn that is over gives room again', async (t) => {
  const { come, turn, begun } = portionsOf(1)
  come(0)
  await turn()
  come(1)
  t.deepEqual(begun, [0, 1])
})

test('what was used up in a turn is not there a second time in it', async (t) => {
  const { come, turn, begun } = portionsOf(2)
  for (let name = 0; name < 3; name++) come(name)
  await turn()
  t.deepEqual(begun, [0, 1, 2])
  come(3)
  come(4)
  t.deepEqual(begun, [0, 1, 2, 3])
})

test('who has gone meanwhile takes no place of those who are here', async (t) => {
  const { come, turn, begun } = portionsOf(1)
  const gone = { destroyed: false }
  come(0)
  for (let name = 1; name < 4; name++) come(name, gone)
  come(4)
  come(5)
  gone.destroyed = true
  await turn()
  t.deepEqual(begun, [0, 1, 2, 3, 4])
  await turn()
  t.deepEqual(begun, [0, 1, 2, 3, 4, 5])
})
