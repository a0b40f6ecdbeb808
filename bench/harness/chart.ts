import type { Figure } from './bench.ts'
import { short } from './statistics.ts'
import { type Answer, type CaseAnswer, cellOf, referencesOf } from './summary.ts'

// Charts as SVG that needs nothing else: no script, no font, no host; light and dark by the reader's own setting.

/** Text of an element or an attribute. */
export function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;')
}

/**
 * Ours stands out, whatever else there is recedes; nothing is told by color alone. Blue and orange are told apart by
 * every kind of sight, and grey is less than both.
 */
const STYLE = `
.bench { --ink: #1c1f23; --soft: #5b636e; --rule: #d8dde3; --ours: #0b66c3; --kin: #7fb2e5; --other: #a9b0b8; --mark: #c2570c; }
@media (prefers-color-scheme: dark) {
  .bench { --ink: #e8eaed; --soft: #a3abb5; --rule: #3a4049; --ours: #58a6f4; --kin: #2f6299; --other: #69717b; --mark: #f0913c; }
}
.bench text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
.bench .title { font-weight: 600; font-size: 14px; }
.bench .soft { fill: var(--soft); font-size: 12px; }
.bench .strong { font-weight: 600; }
.bench .ours { fill: var(--ours); }
.bench .kin { fill: var(--kin); }
.bench .other { fill: var(--other); }
.bench .rule { stroke: var(--rule); stroke-width: 1; }
.bench .one { stroke: var(--soft); stroke-width: 1.5; }
.bench .whisker { stroke: var(--ink); stroke-width: 1.5; opacity: 0.65; }
.bench .dot { fill: var(--ours); }
.bench .ring { fill: none; stroke: var(--mark); stroke-width: 2; }
`

function drawing(width: number, height: number, label: string, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" class="bench" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(label)}"><style>${STYLE}</style>${parts.join('')}</svg>\n`
}

const WIDTH = 860
const BAR = { height: 18, gap: 9 }
const TITLE_HEIGHT = 44
/** For the value behind a bar, with its ratio. */
const VALUE_WIDTH = 190
/** About what a letter takes. */
const LETTER = 7.2

/** The first figure that this case has: what is drawn. */
export function chartedFigures({ figures }: Pick<Answer, 'figures'>, { peers }: CaseAnswer): readonly string[] {
  return Object.keys(figures).filter((key) => peers.some(({ cells }) => cells[key] !== undefined))
}

/** Bars from zero, one for each peer, with the least and the most of the rounds as whiskers. */
export function caseChart(
  answer: Pick<Answer, 'figures' | 'references'>,
  one: CaseAnswer,
  key: string,
  over = '',
): string {
  const { name, peers } = one
  const figure = answer.figures[key]!
  const shown = peers.filter(({ cells }) => cells[key] !== undefined)
  const left = Math.max(...shown.map(({ peer }) => peer.length)) * LETTER + 16
  const room = WIDTH - left - VALUE_WIDTH
  const most = Math.max(...shown.map(({ cells }) => cells[key]!.spread.max), 0)
  const x = (value: number) => left + (most === 0 ? 0 : (value / most) * room)
  const reference = referencesOf(answer, one)[0]
  const top = over === '' ? TITLE_HEIGHT : TITLE_HEIGHT + 20
  const bars = shown.map(({ peer, cells }, index) => {
    const { spread, ratios } = cells[key]!
    const y = top + index * (BAR.height + BAR.gap)
    const middle = y + BAR.height / 2
    const ratio = reference === undefined ? undefined : ratios[reference]
    const times =
      ratio === undefined ? '' : ` <tspan class="soft">${short(ratio.median)} × ${escaped(reference!)}</tspan>`
    const whisker =
      spread.rounds < 2
        ? ''
        : `<line class="whisker" x1="${px(x(spread.min))}" x2="${px(x(spread.max))}" y1="${middle}" y2="${middle}"/>` +
          [spread.min, spread.max]
            .map(
              (end) =>
                `<line class="whisker" x1="${px(x(end))}" x2="${px(x(end))}" y1="${middle - 4}" y2="${middle + 4}"/>`,
            )
            .join('')
    return (
      `<text x="${left - 8}" y="${middle + 4.5}" text-anchor="end"${peer === 'brokergate' ? ' class="strong"' : ''}>${escaped(peer)}</text>` +
      `<rect class="${kindOf(peer)}" x="${px(left)}" y="${y}" width="${px(Math.max(1, x(spread.median) - left))}" height="${BAR.height}" rx="2"/>` +
      whisker +
      `<text x="${px(x(spread.max) + 8)}" y="${middle + 4.5}">${escaped(withUnit(spread.median, figure))}${times}</text>`
    )
  })
  const height = top + shown.length * (BAR.height + BAR.gap) + 4
  const label = `${over === '' ? '' : `${over} `}${name}: ${figure.label}`
  return drawing(WIDTH, height, label, [
    ...(over === '' ? [] : [`<text class="title" x="0" y="15">${escaped(over)}</text>`]),
    `<text${over === '' ? ' class="title"' : ''} x="0" y="${top - 29}">${escaped(name)}</text>`,
    `<text class="soft" x="0" y="${top - 12}">${escaped(scaleText(figure))}</text>`,
    `<line class="rule" x1="${px(left)}" x2="${px(left)}" y1="${top - 4}" y2="${height - 6}"/>`,
    ...bars,
  ])
}

const scaleText = ({ label, unit, better }: Figure): string =>
  `${label}${unit === '' ? '' : `, ${unit}`}; ${better === 'less' ? 'shorter is better' : 'longer is better'}`

function kindOf(peer: string): string {
  if (peer === 'brokergate') return 'ours'
  return /^(haproxy|nginx)\b/.test(peer) ? 'other' : 'kin'
}

function withUnit(value: number, { unit }: Figure): string {
  if (unit === '') return short(value)
  return unit === '/s' || unit === '%'
    ? `${short(value)} ${unit}`.replace(' /s', ' a second')
    : `${short(value)} ${unit}`
}

const px = (value: number): number => Math.round(value * 10) / 10

interface Row {
  readonly label: string
  readonly haproxy: number | null
  readonly nginx: number | null
}

const OVERVIEW: readonly (readonly [label: string, question: string, name: string, figure: string])[] = [
  ['Full handshake and CONNECT, CPU', 'handshake', 'certificates of a CA', 'cpuUs'],
  ['Resumed handshake and CONNECT, CPU', 'resumption', 'TLS 1.3 tickets, certificates of a CA', 'cpuUs'],
  ['Refusal without server name, CPU', 'refusal', 'no server name', 'cpuUs'],
  ['Refusal of an unknown certificate, CPU', 'refusal', 'certificate of another CA', 'cpuUs'],
  ['QoS 1, 128 B, one in flight, CPU', 'publish', 'QoS 1, 128 B, one in flight', 'cpuUs'],
  ['QoS 1, 128 B, 16 in flight, CPU', 'publish', 'QoS 1, 128 B, 16 in flight', 'cpuUs'],
  ['QoS 0, 128 B, bursts of 16, CPU', 'publish', 'QoS 0, 128 B, bursts of 16', 'cpuUs'],
  ['QoS 1, 16 KiB, one in flight, CPU', 'publish', 'QoS 1, 16 KiB, one in flight', 'cpuUs'],
  ['Delivery to a hundred devices, CPU', 'fan-out', 'QoS 0, 128 B, 100 devices', 'cpuUs'],
  ['Memory of an idle session (5,000)', 'memory', '5,000 sessions', 'kilobytes'],
  ['Publish during a storm, p99', 'storm', 'publish during the storm', 'p99Ms'],
  ['Last of 5,000 back after', 'storm', '5,000 devices come back', 'seconds'],
]

/** brokergate beside the others in one picture: ratios, on a scale where half and double are as far from one. */
export function overviewChart(answers: readonly Answer[]): string | null {
  const rows: Row[] = OVERVIEW.flatMap(([label, question, name, figure]) => {
    const ratios = cellOf(answers, { question, case: name, peer: 'brokergate', figure })?.ratios
    const [haproxy, nginx] = [ratios?.haproxy?.median ?? null, ratios?.nginx?.median ?? null]
    return haproxy === null && nginx === null ? [] : [{ label, haproxy, nginx }]
  })
  if (rows.length === 0) return null
  const values = rows.flatMap(({ haproxy, nginx }) => [haproxy, nginx].filter((one) => one !== null))
  const powers = values.map((value) => Math.log2(value))
  const [low, high] = [Math.min(-1, ...powers) - 0.2, Math.max(1, ...powers) + 0.2]
  const [left, right, top, step] = [270, WIDTH - 24, 66, 26]
  const x = (value: number) => left + ((Math.log2(value) - low) / (high - low)) * (right - left)
  const height = top + rows.length * step + 8
  const ticks = Array.from({ length: Math.floor(high) - Math.ceil(low) + 1 }, (_, at) => at + Math.ceil(low))
  return drawing(WIDTH, height, 'brokergate as a share of HAProxy and nginx', [
    '<text class="title" x="0" y="15">brokergate beside HAProxy and nginx</text>',
    '<circle class="dot" cx="6" cy="32" r="5"/><text class="soft" x="17" y="36">× HAProxy</text>',
    '<circle class="ring" cx="96" cy="32" r="4.5"/><text class="soft" x="107" y="36">× nginx</text>',
    `<text class="soft" x="${right}" y="15" text-anchor="end">less than 1 is better</text>`,
    ...ticks.map(
      (power) =>
        `<line class="${power === 0 ? 'one' : 'rule'}" x1="${px(x(2 ** power))}" x2="${px(x(2 ** power))}" y1="${top - 12}" y2="${height - 6}"/>` +
        `<text class="soft" x="${px(x(2 ** power))}" y="${top - 18}" text-anchor="middle">${power < 0 ? `1/${2 ** -power}` : 2 ** power}</text>`,
    ),
    ...rows.map(({ label, haproxy, nginx }, index) => {
      const y = top + index * step + step / 2
      return (
        `<text x="${left - 14}" y="${y + 4.5}" text-anchor="end">${escaped(label)}</text>` +
        (nginx === null
          ? ''
          : `<circle class="ring" cx="${px(x(nginx))}" cy="${y}" r="4.5"><title>${short(nginx)} × nginx</title></circle>`) +
        (haproxy === null
          ? ''
          : `<circle class="dot" cx="${px(x(haproxy))}" cy="${y}" r="5"><title>${short(haproxy)} × HAProxy</title></circle>`)
      )
    }),
  ])
}
