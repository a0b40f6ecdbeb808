import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { capacityRows } from './capacity.ts'
import { caseChart, chartedFigures, overviewChart } from './harness/chart.ts'
import type { Run } from './harness/machine.ts'
import { short } from './harness/statistics.ts'
import { type Answer, type CaseAnswer, type Cell, referencesOf } from './harness/summary.ts'
import { markdownTable, plainTable } from './harness/table.ts'
import { type Standing, standings } from './harness/targets.ts'

// An answer as text: on the terminal, and in RESULTS.md.

export function answerText(answer: Answer): string {
  const lines = [`\n${answer.title}  (${answer.question}, ${answer.seconds} s)`]
  for (const one of answer.cases) {
    const { head, rows } = caseTable(answer, one)
    lines.push('', plainTable([one.name, ...head], rows))
  }
  for (const { case: name, peer, reason } of answer.gaps) {
    lines.push(`not answered: ${[name, peer].filter((part) => part !== null).join(', ') || 'all'}: ${reason}`)
  }
  if (answer.failure !== null) lines.push(`FAILED: ${answer.failure}`)
  return lines.join('\n')
}

export interface Table {
  readonly head: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

/** One row for each peer: medians with their spread, and the first figure beside that of others. */
export function caseTable(answer: Pick<Answer, 'figures' | 'references'>, one: CaseAnswer): Table {
  const { peers } = one
  const shown = Object.entries(answer.figures).filter(([key]) => peers.some(({ cells }) => cells[key] !== undefined))
  const first = shown[0]?.[0]
  const references = referencesOf(answer, one)
  return {
    head: [
      ...shown.map(([, { label, unit }]) => (unit === '' ? label : `${label}, ${unit}`)),
      ...references.map((name) => `× ${name}`),
    ],
    rows: peers.map(({ peer, cells }) => [
      peer,
      ...shown.map(([key]) => cellText(cells[key])),
      ...references.map((name) =>
        peer === name ? '1' : short(cells[first ?? '']?.ratios[name]?.median ?? Number.NaN),
      ),
    ]),
  }
}

/** Median, and the least and most of the rounds where there were several. */
export function cellText(cell: Cell | undefined): string {
  if (cell === undefined) return '–'
  const { median, min, max, rounds } = cell.spread
  return rounds < 2 ? short(median) : `${short(median)} (${short(min)}–${short(max)})`
}

const FILE = join(import.meta.dirname, 'RESULTS.md')
const CHARTS = join(import.meta.dirname, 'charts')

/** RESULTS.md and the charts that it and the README show. */
export function writeResults(run: Run): void {
  rmSync(CHARTS, { recursive: true, force: true })
  mkdirSync(CHARTS, { recursive: true })
  for (const answer of run.answers) {
    for (const one of answer.cases) {
      const figure = chartedFigures(answer, one)[0]
      if (figure === undefined) continue
      writeFileSync(join(CHARTS, chartName(answer.question, one.name)), caseChart(answer, one, figure, answer.title))
    }
  }
  const overview = overviewChart(run.answers)
  if (overview !== null) writeFileSync(join(CHARTS, 'overview.svg'), overview)
  writeFileSync(FILE, resultsPage(run))
  process.stderr.write(`${FILE}, and ${readdirSync(CHARTS).length} charts beside it\n`)
}

export const chartName = (question: string, name: string): string =>
  `${question}-${name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')}`.replace(/-+$/, '').concat('.svg')

export function resultsPage(run: Run): string {
  const parts = [
    '# Results of the last run',
    '',
    'Written by `npm run bench -- --results`; [README.md](README.md) says how each is measured. Compare the ratios, not the',
    'microseconds: a cell is the median of the rounds with the least and the most, and × another proxy is the median of the',
    'ratios round by round, for the first figure of its table. «–» was not measured.',
    '',
    markdownTable(
      ['', 'this run'],
      [
        ['date, commit', `${run.date} UTC, ${run.commit}`],
        ['machine', `${run.cpu}, ${run.cores} cores, ${run.memoryGb} GB`],
        ['system', `${run.os}, Linux ${run.kernel}`],
        [
          'load and broker',
          `${run.load}, ${run.broker}; ${run.pinned ? 'proxy and load on cores of their own' : 'not pinned'}`,
        ],
        ['rounds, time', `${run.rounds}, ${run.seconds} s${run.smoke ? '; **smoke: no figures to quote**' : ''}`],
        [
          'waiting to run before',
          `${run.loadBefore} processes${run.loadBefore > 1 ? ': **the machine was busy with something else**' : ''}`,
        ],
        ...run.peers.map(({ name, version, about }) => [name, `${version}: ${about}`]),
      ],
    ),
    '',
    '## What is to be reached',
    '',
    ...standingsTable(standings(run.answers)),
    '',
    '## The capacity model',
    '',
    'The constants of [README.md](README.md#capacity), from this run.',
    '',
    markdownTable(['constant', 'value', 'from'], capacityRows(run.answers)),
  ]
  for (const answer of run.answers) {
    parts.push('', `## ${answer.question}: ${answer.title}`, '', answer.about)
    for (const one of answer.cases) {
      const { head, rows } = caseTable(answer, one)
      parts.push('', markdownTable([one.name, ...head], rows))
    }
    if (answer.gaps.length > 0) parts.push('', ...answer.gaps.map(gapLine))
    if (answer.failure !== null) parts.push('', `**Not answered**: ${answer.failure.split('\n')[0]}`)
  }
  return `${parts.join('\n')}\n`
}

const gapLine = ({ case: name, peer, reason }: Answer['gaps'][number]): string =>
  `- not answered: ${[name, peer].filter((part) => part !== null).join(', ') || 'all'}: ${reason}`

export const STANDING_HEAD = ['brokergate', 'at most', 'is', ''] as const

export function standingRow({ target, ratio, reached }: Standing): readonly string[] {
  const word = reached === null ? 'not measured' : reached ? 'reached' : 'not reached'
  return [
    `${target.what}${target.stretch ? ' (stretch)' : ''}`,
    `${target.most} × ${target.of}`,
    ratio === null ? '–' : short(ratio),
    word,
  ]
}

function standingsTable(all: readonly Standing[]): readonly string[] {
  const rows = all
    .map(standingRow)
    .map((row) => (row[3] === 'not reached' ? [...row.slice(0, 3), '**not reached**'] : row))
  return [markdownTable(STANDING_HEAD, rows)]
}
