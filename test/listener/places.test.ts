import test from 'ava'
import { Bucket } from '../../src/listener/bucket.ts'
import { Places, placeOf } from '../../src/listener/places.ts'

test('an IPv4 address is a place; IPv6 addresses of one network are one', (t) => {
  t.is(placeOf('192.0.2.7', 64), '192.0.2.7')
  t.is(placeOf('2001:db8:1:2::1', 64), placeOf('2001:db8:1:2:ffff::9', 64))
  t.not(placeOf('2001:db8:1:2::1', 64), placeOf('2001:db8:1:3::1', 64))
  t.is(placeOf('fe80::1%eth0', 64), placeOf('fe80::2', 64))
  t.not(placeOf('2001:db8::1', 128), placeOf('2001:db8::2', 128))
  t.is(placeOf('2001:db8:10::', 44), placeOf('2001:db8:1f::', 44))
  t.not(placeOf('2001:db8:10::', 44), placeOf('2001:db8:20::', 44))
  t.is(placeOf('unknown', 64), 'unknown')
})

test('a place exists for as long as there is a connection from it', (t) => {
  const places = new Places(64)
  const first = places.enter('2001:db8::1')
  const second = places.enter('2001:db8::2')
  t.is(first, second)
  t.is(first.connections, 2)
  places.leave(first)
  t.is(places.size, 1)
  places.leave(second)
  t.is(places.size, 0)
  t.not(places.enter('2001:db8::1'), first)
})

test('a bucket gives so many a second evenly, and a tenth of a second at once after a rest', (t) => {
  const bucket = new Bucket(100, 0)
  let given = 0
  for (let now = 0; now <= 1_000; now += 10) {
    while (bucket.has(now)) {
      bucket.take(now)
      given++
    }
  }
  t.is(given, 110)
  t.is(Math.round(bucket.nextAt(1_000)), 1_010)
})

test('what is owed is paid back, and is never more than a second', (t) => {
  const bucket = new Bucket(10, 0)
  for (let owed = 0; owed < 100; owed++) bucket.owe(0)
  t.false(bucket.has(1_000))
  t.true(bucket.has(1_101))
})

test('without a limit there is always one, and a limit that comes later begins with a burst at most', (t) => {
  const bucket = new Bucket(null, 0)
  for (let taken = 0; taken < 1_000; taken++) bucket.take(0)
  t.true(bucket.has(0))
  bucket.configure(50, 10_000)
  let given = 0
  while (bucket.has(10_000)) {
    bucket.take(10_000)
    given++
  }
  t.true(given <= 5)
})
