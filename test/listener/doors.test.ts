import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import test from 'ava'
import { Doors } from '../../src/listener/doors.ts'
import type { ListenerOptions } from '../../src/listener/listener.ts'

const at = (port: number, as = 8883): ListenerOptions => ({
  host: '127.0.0.1',
  port,
  as,
  proxyProtocol: null,
  helloTimeoutMs: 5_000,
})

class FakeSocket extends EventEmitter {
  destroyed = false
  destroy() {
    this.destroyed = true
  }
}
// Doors hand sockets on and destroy them; they ask nothing else of them.
const fakeSocket = () => new FakeSocket() as FakeSocket & Socket

function rig(taken: readonly number[] = []) {
  const open = new Map<number, (socket: Socket) => void>()
  const served: string[] = []
  const doors = new Doors(
    {
      async listen({ host, port }, accept) {
        if (taken.includes(port)) throw new Error('EADDRINUSE')
        open.set(port, accept)
        return {
          host,
          port,
          async close() {
            open.delete(port)
          },
        }
      },
    },
    (_socket, { port, as }) => void served.push(`${port} as ${as}`),
  )
  const prepare = async (...wanted: ListenerOptions[]) => {
    const change = await doors.prepare(wanted)
    if (typeof change === 'string') throw new Error(change)
    return change
  }
  return { doors, open, served, prepare }
}

test('a new listener is bound before, and serves from the commit on', async (t) => {
  const { open, served, prepare } = rig()
  const change = await prepare(at(1))
  open.get(1)!(fakeSocket())
  t.deepEqual(served, [])
  change.commit()
  t.deepEqual(served, ['1 as 8883'])
  open.get(1)!(fakeSocket())
  t.is(served.length, 2)
})

test('one that stays is not bound again, and serves by its new options', async (t) => {
  const { open, served, prepare } = rig()
  ;(await prepare(at(1))).commit()
  const bound = open.get(1)
  const change = await prepare(at(1, 443))
  open.get(1)!(fakeSocket())
  change.commit()
  open.get(1)!(fakeSocket())
  t.is(open.get(1), bound)
  t.deepEqual(served, ['1 as 8883', '1 as 443'])
})

test('one that is not asked for any more is closed at the commit, not before', async (t) => {
  const { open, prepare } = rig()
  ;(await prepare(at(1), at(2))).commit()
  const change = await prepare(at(2))
  t.deepEqual([...open.keys()], [1, 2])
  change.commit()
  t.deepEqual([...open.keys()], [2])
})

test('an address that is taken is an answer, and leaves nothing bound', async (t) => {
  const { doors, open, prepare } = rig([3])
  ;(await prepare(at(1))).commit()
  t.is(await doors.prepare([at(1), at(2), at(3)]), 'listeners[2].bind: 127.0.0.1 port 3: EADDRINUSE')
  t.deepEqual([...open.keys()], [1])
})

test('a change that is called off closes what it bound and who came there', async (t) => {
  const { open, served, prepare } = rig()
  ;(await prepare(at(1))).commit()
  const change = await prepare(at(1), at(2))
  const early = fakeSocket()
  open.get(2)!(early)
  change.abort()
  t.true(early.destroyed)
  t.deepEqual([...open.keys()], [1])
  open.get(1)!(fakeSocket())
  t.deepEqual(served, ['1 as 8883'])
})

test('more who wait for the commit than there is room for are sent away', async (t) => {
  const { open, served, prepare } = rig()
  const change = await prepare(at(1))
  const all = Array.from({ length: 1_025 }, fakeSocket)
  for (const socket of all) open.get(1)!(socket)
  t.deepEqual(
    all.map(({ destroyed }) => destroyed).filter((is) => is),
    [true],
  )
  change.commit()
  t.is(served.length, 1_024)
})

test('a process that takes in nobody any more binds nothing, whatever is asked for', async (t) => {
  const { doors, open, prepare } = rig()
  ;(await prepare(at(1))).commit()
  const early = await prepare(at(1), at(2))
  await doors.close()
  early.commit()
  ;(await prepare(at(3))).commit()
  t.deepEqual([...open.keys()], [])
})

test('several listeners of port 0 are several', async (t) => {
  const { doors, prepare } = rig()
  ;(await prepare(at(0), at(0))).commit()
  t.is(doors.bound.length, 2)
})

test('in a process that drains other settings open nothing any more', async (t) => {
  const { doors, open, prepare } = rig()
  const first = await prepare(at(1))
  first.commit()
  await doors.close()
  const change = await prepare(at(1), at(2))
  change.commit()
  t.deepEqual([...open.keys()], [])
})
