import { FAILURES, type FailureCode, reasonOf } from '../errors.ts'
import { LIMITS, type LimitForm, type LimitRow } from '../mqtt/limits.ts'
import { LOG_FIELDS } from './log.ts'
import { METRIC_PREFIX, METRICS, type MetricRow, RUNGS, type Rung } from './metric-table.ts'

const MADE = '<!-- Made from the source by `npm run reference`; changes here are lost. -->'

/** RFC 8446 §6, RFC 6066 §3 and RFC 7301 §3.2, those that the failure table uses. */
const ALERT_NAMES: Readonly<Record<number, string>> = {
  47: 'illegal_parameter',
  50: 'decode_error',
  80: 'internal_error',
  109: 'missing_extension',
  112: 'unrecognized_name',
  120: 'no_application_protocol',
}

const RUNG_METRIC: Readonly<Record<Rung, string>> = {
  hello: 'hellos_total',
  handshake: 'handshakes_total',
  identity: 'identities_total',
  connect: 'connects_total',
  dial: 'backend_dials_total',
}

/** The reference pages by file name, each from the table that the program itself uses. */
export function referencePages(): Record<string, string> {
  return {
    'reference-metrics.md': metricsPage(),
    'reference-failures.md': failuresPage(),
    'reference-log.md': logPage(),
    'reference-limits.md': limitsPage(),
  }
}

function metricsPage(): string {
  const rows = Object.entries<MetricRow>(METRICS).map(([name, row]) => [
    `\`${METRIC_PREFIX}${name}\``,
    row.type,
    row.labels.map((label) => `\`${label}\``).join(', ') || '–',
    row.join ?? 'sum',
    row.help,
  ])
  return page(
    'Metrics',
    'Served at `/metrics` in the Prometheus text format. With several workers, one scrape asks them all and joins their\n' +
      'answers as the column says; counters go on from where they were when a worker is replaced. `result` is `ok` or a\n' +
      'reason of the [failure table](reference-failures.md). No label value ever comes from a device.',
    ['name', 'type', 'labels', 'join', 'meaning'],
    rows,
  )
}

function failuresPage(): string {
  const rows = (Object.keys(FAILURES) as FailureCode[]).map((code) => {
    const failure = FAILURES[code]
    return [
      `\`${code}\``,
      `\`${reasonOf(code)}\``,
      failure.fault,
      failure.retry ? 'yes' : 'no',
      failure.alert === null ? '–' : `${failure.alert} ${ALERT_NAMES[failure.alert] ?? ''}`.trim(),
      hex(failure.connack),
      hex(failure.disconnect),
      failure.http === null ? '–' : String(failure.http),
      // A code that is newer than the table of rungs is counted when its connection ends, as all are.
      (RUNGS[code] ?? []).map((rung) => `\`${METRIC_PREFIX}${RUNG_METRIC[rung]}\``).join(', ') || '–',
      failure.help,
    ]
  })
  return page(
    'Failures',
    'Every way in which a connection is refused or ended by the proxy. The reason stands in the log and is a label of\n' +
      '`brokergate_connections_closed_total`; the column *also counted in* names where it is a `result` too. A dash means\n' +
      'that nothing is sent and the connection closes in silence. CONNACK and DISCONNECT are MQTT 5 reason codes.',
    ['code', 'reason', 'fault', 'retried', 'TLS alert', 'CONNACK', 'DISCONNECT', 'HTTP', 'also counted in', 'meaning'],
    rows,
  )
}

function logPage(): string {
  const rows = Object.entries(LOG_FIELDS).map(([name, field]) => [`\`${name}\``, field.unit ?? '–', field.help])
  return page(
    'Log fields',
    'One JSON object per line on standard output; a terminal gets readable lines. Every connection is told in one line at\n' +
      'its end; fields that it never reached are left out. What devices do is `info`, what the broker or the proxy did wrong\n' +
      'is `warn`.',
    ['field', 'unit', 'meaning'],
    rows,
  )
}

const LIMIT_UNITS: Readonly<Record<LimitForm, string>> = {
  count: '',
  qos: '',
  flag: '',
  size: ' bytes',
  seconds: ' s',
  ms: ' ms',
}

function limitsPage(): string {
  const rows = Object.values<LimitRow>(LIMITS).map((row) => {
    const said = (value: LimitRow['open']): string =>
      value === null
        ? '–'
        : `${typeof value === 'number' ? value.toLocaleString('en-US') : value}${LIMIT_UNITS[row.form]}`
    return [`\`limits.${row.setting}\``, said(row.open), said(row['aws-iot']), row.help, row.past]
  })
  return page(
    'Limits',
    'What a session may ask for. `limits.profile` chooses the column, and each limit can be set on its own, for all or in\n' +
      '`domains[].limits`. A dash is no limit of the proxy: the rule of the broker holds. `none` takes a limit of the profile\n' +
      'away. Numbers after a packet are reason codes of MQTT 5.',
    ['setting', '`open`', '`aws-iot`', 'meaning', 'past it'],
    rows,
  )
}

function page(title: string, text: string, head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [`# ${title}`, '', MADE, '', text, '', line(head), line(head.map(() => '---')), ...rows.map(line), ''].join(
    '\n',
  )
}

function hex(code: number | null): string {
  return code === null ? '–' : `0x${code.toString(16).padStart(2, '0')}`
}
