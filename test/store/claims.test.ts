import test from 'ava'
import { Claims } from '../../src/store/claims.ts'
import type { Claim } from '../../src/store/store.ts'

function claimsAt(start = 0) {
  let now = start
  const lost: string[] = []
  const claims = new Claims(
    (session, member) => lost.push(`${session}@${member}`),
    () => now,
  )
  const claim = (session: string, changes: Partial<Claim> = {}, member = 1) =>
    claims.claim({ key: 'main\na', owner: 'x509 ab12', session, perSecond: null, tentative: false, ...changes }, member)
      .kind
  return {
    claims,
    lost,
    claim,
    pass: (ms: number) => {
      now += ms
    },
  }
}

test('the newcomer of the same owner wins, and the loser is told in its own process', (t) => {
  const { claim, lost } = claimsAt()
  t.is(claim('s1', {}, 1), 'granted')
  t.is(claim('s2', {}, 2), 'granted')
  t.deepEqual(lost, ['s1@1'])
})

test('another owner never takes over, and learns no more than that', (t) => {
  const { claim, lost, pass } = claimsAt()
  claim('s1')
  for (let second = 0; second < 5; second++) {
    t.is(claim('s2', { owner: 'x509 ffff' }), 'taken')
    pass(1_000)
  }
  t.deepEqual(lost, [])
})

test('another owner may have the key once it is released', (t) => {
  const { claims, claim } = claimsAt()
  claim('s1')
  claims.release('main\na', 's1')
  t.is(claim('s2', { owner: 'x509 ffff' }), 'granted')
})

test('a key is taken over at most once a second, whatever the limits', (t) => {
  const { claim, lost, pass } = claimsAt()
  claim('s1')
  t.is(claim('s2'), 'granted')
  t.is(claim('s3'), 'rate')
  pass(999)
  t.is(claim('s3'), 'rate')
  pass(1)
  t.is(claim('s3'), 'granted')
  t.deepEqual(lost, ['s1@1', 's2@1'])
})

test('claims of a key per second are as many as were said, and refused ones do not count', (t) => {
  const { claims, claim, pass } = claimsAt()
  const cycle = (session: string) => {
    const kind = claim(session, { perSecond: 2 })
    claims.release('main\na', session)
    return kind
  }
  t.deepEqual(['1', '2', '3', '4'].map(cycle), ['granted', 'granted', 'rate', 'rate'])
  pass(500)
  t.deepEqual(['5', '6'].map(cycle), ['granted', 'rate'])
  pass(10_000)
  t.deepEqual(['7', '8', '9'].map(cycle), ['granted', 'granted', 'rate'])
})

test('a tentative claim says whose a key is, and changes nothing', (t) => {
  const { claims, claim, lost } = claimsAt()
  t.is(claim('s1', { tentative: true }), 'granted')
  t.is(claims.size, 0)
  claim('s2')
  t.is(claim('s3', { tentative: true }), 'granted')
  t.is(claim('s4', { tentative: true, owner: 'somebody' }), 'taken')
  t.deepEqual(lost, [])
  t.is(claims.held, 1)
})

test('a session that has lost its key releases nothing', (t) => {
  const { claims, claim } = claimsAt()
  claim('s1')
  claim('s2')
  claims.release('main\na', 's1')
  t.is(claims.held, 1)
  t.is(claim('s3', { owner: 'somebody' }), 'taken')
})

test('a session that claims again keeps its key and loses it to nobody', (t) => {
  const { claim, lost } = claimsAt()
  claim('s1')
  t.is(claim('s1'), 'granted')
  t.deepEqual(lost, [])
})

test('what a dead process held is free, and what others hold is not', (t) => {
  const { claims, claim } = claimsAt()
  claim('s1', { key: 'main\na' }, 1)
  claim('s2', { key: 'main\nb' }, 1)
  claim('s3', { key: 'main\nc' }, 2)
  claims.releaseAll(1)
  t.is(claims.held, 1)
  t.is(claim('s4', { owner: 'somebody' }), 'granted')
  t.is(claim('s5', { key: 'main\nc', owner: 'somebody' }), 'taken')
})

test('a key that nobody holds is forgotten after a second', (t) => {
  const { claims, claim, pass } = claimsAt()
  for (let n = 0; n < 1_000; n++) {
    claim(`s${n}`, { key: `main\n${n}`, perSecond: 1 })
    claims.release(`main\n${n}`, `s${n}`)
  }
  t.deepEqual([claims.size, claims.held], [1_000, 0])
  pass(1_000)
  claim('last', { key: 'main\nlast' })
  t.deepEqual([claims.size, claims.held], [1, 1])
})

test('the claims of a key are counted, and after an hour without one the count begins again', (t) => {
  const { claims, pass } = claimsAt()
  const version = (session: string, key = 'main\na') => {
    const answer = claims.claim({ key, owner: 'o', session, perSecond: null, tentative: false }, 1)
    return answer.kind === 'granted' ? answer.version : answer.kind
  }
  t.is(version('s1'), 0)
  claims.release('main\na', 's1')
  pass(2_000)
  t.is(version('s2'), 1)
  t.is(version('s3', 'main\nb'), 0)
  claims.release('main\na', 's2')
  pass(3_600_001)
  t.is(version('s4'), 0)
})

/** One that claims its key and leaves; which claim of that key it was. */
const cameAndWent = (claims: Claims, keyOf: (n: number) => string) => (n: number) => {
  const key = keyOf(n)
  const answer = claims.claim({ key, owner: 'o', session: `s${n}`, perSecond: null, tentative: false }, 1)
  claims.release(key, `s${n}`)
  return answer.kind === 'granted' ? answer.version : answer.kind
}

test('of client ids as long as MQTT allows fewer are counted', (t) => {
  const { claims } = claimsAt()
  const version = cameAndWent(claims, (n) => `main\n${String(n).padStart(65_500, 'a')}`)
  version(0)
  t.is(version(0), 1)
  for (let n = 1; n <= 300; n++) version(n)
  t.is(version(300), 1)
  t.is(version(0), 0, 'it had to make room')
})

test('of client ids of usual lengths so many are counted that a fleet fits in', (t) => {
  const { claims } = claimsAt()
  const version = cameAndWent(claims, (n) => `main\ndevice-${n}`)
  for (let n = 0; n < 70_000; n++) version(n)
  t.is(version(0), 1, 'all of them')
  for (let n = 70_000; n < 160_000; n++) version(n)
  t.is(version(1), 0, 'it had to make room')
})
