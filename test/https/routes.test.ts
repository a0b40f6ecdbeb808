import test from 'ava'
import { checkHead, type Head } from '../../src/https/head.ts'
import { matchRoute, type RouteOptions, resourceOf, routeTable, targetFor } from '../../src/https/routes.ts'

const get = (target: string, method = 'GET'): Head => {
  const result = checkHead(
    { method, url: target, httpVersion: '1.1', rawHeaders: ['Host', 'a.example'] },
    { serverNames: ['a.example'], maxHeaders: 9, upgrade: false },
  )
  if (result.kind === 'refused') throw new Error(result.detail)
  return result.head
}
const route = (path: string, changes: Partial<RouteOptions> = {}): RouteOptions => ({
  path,
  methods: ['GET'],
  backend: 'shadows',
  action: 'iot:GetThingShadow',
  resource: null,
  headers: [],
  ...changes,
})
const SHADOWS = routeTable([
  route('/things/*/shadow'),
  route('/things/*/shadow', { methods: ['POST'], action: 'iot:UpdateThingShadow' }),
  route('/things/*/jobs/*', { action: 'iot:DescribeJobExecution' }),
  route('/retainedMessage/*', { action: 'iot:GetRetainedMessage', resource: 'topic/${1}' }),
])
const matched = (target: string, method = 'GET'): string => {
  const match = matchRoute(SHADOWS, get(target, method))
  if (match.kind === 'none') return 'none'
  if (match.kind === 'method') return `allow ${match.allow.join(' ')}`
  return `${match.route.action} on ${resourceOf(match.route, match.captures, get(target).query)}`
}

test('a star is one segment, and the thing of the path is what the policy is asked about', (t) => {
  t.is(matched('/things/sensor-1/shadow'), 'iot:GetThingShadow on thing/sensor-1')
  t.is(matched('/things/sensor-1/shadow', 'POST'), 'iot:UpdateThingShadow on thing/sensor-1')
  t.is(matched('/things/sensor%2D1/shadow'), 'iot:GetThingShadow on thing/sensor-1')
  t.is(matched('/things/sensor-1/jobs/$next'), 'iot:DescribeJobExecution on thing/sensor-1')
})

test('a named shadow is a resource of its own', (t) => {
  t.is(matched('/things/t/shadow?name=config'), 'iot:GetThingShadow on thing/t/config')
  t.is(matched('/things/t/shadow?x=1&name=%24a%3Ab'), 'iot:GetThingShadow on thing/t/$a:b')
})

for (const query of [
  'name=',
  'name=a&name=b',
  'Name=a',
  'n%61me=a',
  'name=a;name=b',
  'name=a%2Fb',
  'name=..',
  'name=a b',
  'name=%',
  '+name=a',
  'name',
]) {
  test(`a shadow cannot be named by ?${query}`, (t) => {
    const spelled = query.replace(' ', '%20')
    if (query === 'n%61me=a') return t.is(matched(`/things/t/shadow?${spelled}`), 'iot:GetThingShadow on thing/t/a')
    t.throws(() => matched(`/things/t/shadow?${spelled}`), { code: 'ERR_REQUEST_INVALID' })
  })
}

test('a capture can be put into a resource, decoded', (t) => {
  t.is(matched('/retainedMessage/a%2Fb'), 'iot:GetRetainedMessage on topic/a/b')
})

test('there is no route for a path that two readers could take for two', (t) => {
  for (const path of [
    '/things//shadow',
    '/things/./shadow',
    '/things/../shadow',
    '/things/%2e%2e/shadow',
    '/things/.%2E/shadow',
    '/things/t/shadow/',
    '//things/t/shadow',
    '/retainedMessage/a%2F..%2Fb',
    '/retainedMessage/a%5c..%5cb',
    '/things/%00/shadow',
    '/things/%/shadow',
    '/things/%ff/shadow',
    '/',
    '/things',
  ]) {
    t.is(matched(path), 'none', path)
  }
})

test('a thing has a name that a thing can have', (t) => {
  for (const name of ['a%2Fb', 'a*', 'a%20b', 'x'.repeat(129)]) {
    t.throws(() => matched(`/things/${name}/shadow`), { code: 'ERR_REQUEST_INVALID' }, name)
  }
})

test('a path that has routes for other methods names them', (t) => {
  t.is(matched('/things/t/shadow', 'DELETE'), 'allow GET POST')
})

test('what proves who the device is stays here, in whatever spelling', (t) => {
  const target =
    '/x?a=1&X-Amz-Signature=s&x%2Damz-credential=c&x_amz_date=d&token=t&TOKEN=t&x-amz-customauthorizer-name=n&b=%20'
  t.is(targetFor(get(target), ['token']), '/x?a=1&b=%20')
  t.is(targetFor(get('/x?token=t'), ['Token']), '/x')
  t.is(targetFor(get('/x?%=1&ok=1'), []), '/x?ok=1', 'a name that cannot be decoded could be any')
})

test('a route of stars does not lead around what is served here', (t) => {
  const stars = routeTable([route('/*', { action: null }), route('/*/*', { action: null })])
  for (const path of ['/mqtt', '/%6dqtt', '/MQTT', '/mqtt/x', '/topics/t', '/%74opics/t', '/topics']) {
    t.is(matchRoute(stars, get(path)).kind, 'none', path)
  }
  t.is(matchRoute(stars, get('/x')).kind, 'route')
})
