import test from 'ava'
import { caseChart, escaped, overviewChart } from '../../bench/harness/chart.ts'
import { type Answer, casesOf } from '../../bench/harness/summary.ts'
import { reportPage } from '../../bench/report.ts'
import { measured, runOf } from './samples.ts'

const FIGURES = { cpuUs: { label: 'CPU <b>', unit: 'µs', better: 'less' } } as const

const answerOf = (question: string, name: string): Answer => ({
  question,
  title: 'What & why?',
  about: 'a <script>',
  figures: FIGURES,
  references: ['haproxy', 'nginx'],
  cases: casesOf(
    [
      measured({ question, case: name, peer: 'haproxy', round: 1, values: { cpuUs: 20 } }),
      measured({ question, case: name, peer: 'brokergate', round: 1, values: { cpuUs: 10 } }),
    ],
    FIGURES,
    ['brokergate', 'haproxy'],
  ),
  gaps: [],
  failure: null,
  seconds: 1,
})

test('what has a meaning in XML is written out', (t) => {
  t.is(escaped(`<a href="x">'&'</a>`), '&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;')
})

test('a chart holds names as text, never as elements', (t) => {
  const answer = answerOf('handshake', '<i>x</i>')
  const svg = caseChart(answer, answer.cases[0]!, 'cpuUs')
  t.false(svg.includes('<i>'))
  t.false(svg.includes('<b>'))
  t.true(svg.includes('&lt;i&gt;x&lt;/i&gt;'))
})

test('a chart tells the ratio to HAProxy beside the value', (t) => {
  const answer = answerOf('handshake', 'full')
  const svg = caseChart(answer, answer.cases[0]!, 'cpuUs')
  t.regex(svg, /10\.0 µs <tspan class="soft">0\.500 × haproxy<\/tspan>/)
})

test('bars are as long as what they stand for', (t) => {
  const answer = answerOf('handshake', 'full')
  const widths = [...caseChart(answer, answer.cases[0]!, 'cpuUs').matchAll(/<rect [^>]*width="([\d.]+)"/g)].map(
    (match) => Number(match[1]),
  )
  t.is(widths.length, 2)
  t.true(Math.abs(widths[1]! / widths[0]! - 2) < 0.01)
})

test('the overview shows what was measured beside others, and is absent where nothing was', (t) => {
  t.is(overviewChart([]), null)
  t.true(overviewChart([answerOf('handshake', 'certificates of a CA')])?.includes('0.500 × HAProxy'))
})

test('the report asks no other host for anything and runs no script', (t) => {
  const page = reportPage(runOf([answerOf('handshake', 'full')]))
  t.notRegex(page, /<script|<link|src=|@import|url\(/)
  t.deepEqual(
    [...page.matchAll(/https?:\/\/[^"'\s<]+/g)].map(String).filter((url) => !url.includes('www.w3.org/2000/svg')),
    [],
  )
})
