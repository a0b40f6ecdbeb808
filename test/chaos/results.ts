import { readFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import type { RowReport } from './row.ts'
import { TARGETS, type Target } from './targets.ts'

/** The last report of each row, or of each part of one, by its number. */
export function readReports(file: string): ReadonlyMap<number, readonly RowReport[]> {
  const lines = readFileSync(file, 'utf8').split('\n').filter(Boolean)
  const last = new Map<string, RowReport>()
  for (const line of lines) {
    const report = JSON.parse(line) as RowReport
    last.set(`${report.number}/${report.part ?? ''}`, report)
  }
  const rows = new Map<number, RowReport[]>()
  for (const report of last.values()) rows.set(report.number, [...(rows.get(report.number) ?? []), report])
  return rows
}

const megabytes = (bytes: number): string => `${(bytes / 1_048_576).toFixed(0)} MB`
const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ')

function seenOf(report: RowReport): string {
  const { good, rss } = report
  return [
    `${report.part === null ? '' : `${report.part}: `}${report.failure === null ? report.seen : `**NOT REACHED: ${report.failure}**`}`,
    ...(report.gap === null ? [] : [`**gap: ${report.gap}**`]),
    ...(good === null
      ? []
      : [
          `good client: ${good.messages} messages, worst ${good.worstMs.toFixed(0)} ms, p99 ${good.p99Ms.toFixed(0)} ms`,
          ...(good.outagesMs.length === 0
            ? []
            : [`${good.outagesMs.length} outages, longest ${Math.max(...good.outagesMs).toFixed(0)} ms`]),
        ]),
    `memory ${megabytes(rss.start)}, peak ${megabytes(rss.peak)}`,
    `seed ${report.seed}, ${report.seconds.toFixed(1)} s`,
    ...report.notes,
  ].join('; ')
}

function line(target: Target, reports: readonly RowReport[]): string {
  const shown = target.shown.kind === 'chaos' ? `npm run chaos -- ${target.number}` : target.shown.command
  const injected = reports.flatMap((report) => report.injected ?? []).join('; ') || `(${target.injected})`
  const seen = reports.length === 0 ? 'not run here' : reports.map(seenOf).join('<br>')
  const cells = [String(target.number), target.test, injected, target.required, seen, `\`${shown}\``]
  return `| ${cells.map(cell).join(' | ')} |`
}

/** RESULTS.md: the whole target table, also the rows that were not run or not reached. */
export function resultsPage(rows: ReadonlyMap<number, readonly RowReport[]>): string {
  const all = [...rows.values()].flat()
  const runtimes = [...new Set(all.map((report) => report.runtime))].sort()
  const days = [...new Set(all.map((report) => report.at.slice(0, 10)))].sort()
  const failed = TARGETS.filter(({ number }) => rows.get(number)?.some(({ failure }) => failure !== null) === true)
  const gaps = TARGETS.filter(({ number }) => rows.get(number)?.some(({ gap }) => gap !== null) === true)
  const missing = TARGETS.filter(({ number }) => !rows.has(number))
  const list = (targets: readonly Target[]) => targets.map(({ number }) => number).join(', ') || 'none'
  return `# What the chaos suite saw

Written by \`npm run chaos -- --results\`; do not edit. ${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'},
${megabytes(totalmem())} of memory, ${runtimes.join(', ')}, ${days.join(', ')}. Latencies are those of the machine in that
hour: what is required is asserted, what is measured is told.

Rows not reached: ${list(failed)}. Rows with a known gap: ${list(gaps)}. Rows not run here: ${list(missing)}.

| # | test | injected | required | seen | command |
| --- | --- | --- | --- | --- | --- |
${TARGETS.map((target) => line(target, rows.get(target.number) ?? [])).join('\n')}
`
}
