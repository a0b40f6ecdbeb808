import { caseChart, chartedFigures, escaped, overviewChart } from './harness/chart.ts'
import type { Run } from './harness/machine.ts'
import type { Answer } from './harness/summary.ts'
import { standings } from './harness/targets.ts'
import { caseTable, STANDING_HEAD, standingRow, type Table } from './results.ts'

// The report: one page that needs nothing else, for people who would rather look than read.

const STYLE = `
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #5b636e; --paper: #ffffff; --card: #f6f8fa; --rule: #d8dde3; --good: #0b66c3; --bad: #c2570c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a3abb5; --paper: #14171a; --card: #1c2025; --rule: #3a4049; --good: #58a6f4; --bad: #f0913c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 960px; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 0.2rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 0.3rem; }
p { margin: 0.2rem 0 1rem; max-width: 75ch; }
.soft { color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; margin: 1rem 0; }
a { color: var(--good); text-decoration: none; }
a:hover { text-decoration: underline; }
figure { margin: 0 0 1.6rem; padding: 1rem 1.2rem; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
figure svg { max-width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; margin: 0.6rem 0 0; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: right; white-space: nowrap; border-top: 1px solid var(--rule); }
thead th { border-top: 0; color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; }
.wrap td { white-space: normal; text-align: left; }
.good { color: var(--good); }
.bad { color: var(--bad); font-weight: 600; }
ul { margin: 0.3rem 0 1rem; padding-left: 1.2rem; }
`

export function reportPage(run: Run): string {
  const overview = run.smoke ? null : overviewChart(run.answers)
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>brokergate: measurements of ${escaped(run.date)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>brokergate: measurements</h1>
<p class="soft">${escaped(run.date)} UTC · commit ${escaped(run.commit)} · ${escaped(run.cpu)}, ${run.cores} cores · ${escaped(run.os)}, Linux ${escaped(run.kernel)} · ${run.rounds === 1 ? 'one round' : `${run.rounds} rounds`} in ${run.seconds} s · ${escaped(run.broker)} as broker${run.pinned ? '' : ' · not pinned: proxy and load share cores'}</p>
${run.smoke ? '<p class="bad">A smoke run: it shows that every question can be answered. No figures to quote.</p>' : ''}
${run.loadBefore > 1 ? `<p class="bad">The machine was busy with something else (${run.loadBefore} processes were waiting to run): compare ratios only.</p>` : ''}
<p>Bars are medians of the rounds, whiskers the least and the most. All proxies were measured in turn in the same run, so the ratios mean more than the figures.</p>
<nav>${run.answers.map(({ question }) => `<a href="#${escaped(question)}">${escaped(question)}</a>`).join('')}</nav>
${overview === null ? '' : `<figure>${overview}</figure>`}
${run.smoke ? '' : standingsPart(run)}
${run.answers.map(answerPart).join('\n')}
<h2>What was compared</h2>
<div class="scroll wrap">${table({ head: ['version', 'how'], rows: run.peers.map(({ name, version, about }) => [name, version, about]) }, '')}</div>
</body>
</html>
`
}

function standingsPart({ answers }: Run): string {
  const all = standings(answers).filter(({ reached }) => reached !== null)
  if (all.length === 0) return ''
  const [first, ...head] = STANDING_HEAD
  return `<figure><strong>What is to be reached</strong><div class="scroll">${table({ head, rows: all.map(standingRow) }, first)}</div></figure>`
}

function answerPart(answer: Answer): string {
  const { question, title, about, gaps, failure } = answer
  const cases = answer.cases.map((one) => {
    const figure = chartedFigures(answer, one)[0]
    const chart = figure === undefined ? '' : caseChart(answer, one, figure)
    return `<figure>${chart}<div class="scroll">${table(caseTable(answer, one), '')}</div></figure>`
  })
  const missing = gaps.map(({ case: name, peer, reason }) => {
    const who = [name, peer].filter((part) => part !== null).join(', ') || 'all'
    return `<li>${escaped(who)}: ${escaped(reason)}</li>`
  })
  return `<h2 id="${escaped(question)}">${escaped(title)}</h2>
<p class="soft">${escaped(about)}</p>
${failure === null ? '' : `<p class="bad">Not answered: ${escaped(failure.split('\n')[0]!)}</p>`}
${cases.join('\n')}
${missing.length === 0 ? '' : `<p class="soft">Not answered here:</p><ul class="soft">${missing.join('')}</ul>`}`
}

const WORDS: Readonly<Record<string, string>> = { reached: 'good', 'not reached': 'bad' }

function table({ head, rows }: Table, corner: string): string {
  const cell = (text: string) =>
    `<td${WORDS[text] === undefined ? '' : ` class="${WORDS[text]}"`}>${escaped(text)}</td>`
  return `<table><thead><tr>${[corner, ...head].map((text) => `<th>${escaped(text)}</th>`).join('')}</tr></thead><tbody>${rows
    .map((row) => `<tr>${row.map(cell).join('')}</tr>`)
    .join('')}</tbody></table>`
}
