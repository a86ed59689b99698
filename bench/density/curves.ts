import { scaleLinear, scaleLog } from 'd3-scale'
import { line } from 'd3-shape'

/** What `n` instances took, and how long each took to start. */
export interface Curve {
  title: string
  points: { n: number; bytes: number }[]
  times: number[]
}

const WIDTH = 720
const HEIGHT = 300
const LEFT = 70
const RIGHT = 180
/** Told apart by those who see no colours by the order of the legend, which is the curves' own at their end. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#000000']
const path = line()
const escape = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** Two plots in one SVG without script or style sheet: memory over instances, both logarithmic, and the time of the i-th start. */
export function drawCurves(curves: readonly Curve[]): string {
  const most = Math.max(2, ...curves.flatMap(({ points }) => points.map(({ n }) => n)))
  const x = scaleLog([1, most], [LEFT, WIDTH - RIGHT])
  const bytes = curves.flatMap(({ points }) => points.map(({ bytes: one }) => one)).filter((one) => one > 0)
  const memory = scaleLog([Math.min(1e6, ...bytes), Math.max(1e7, ...bytes)], [HEIGHT - 30, 30])
  const times = scaleLinear([0, Math.max(1, ...curves.flatMap(({ times: all }) => all))], [2 * HEIGHT - 30, HEIGHT + 40])
  const text = (at: number, y: number, words: string, anchor = 'start') => `<text x="${at.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}">${escape(words)}</text>`
  const grid = (y: number, words: string) => `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y.toFixed(1)}" y2="${y.toFixed(1)}" stroke="#ddd"/>${text(LEFT - 6, y + 4, words, 'end')}`
  const powers = [1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11].filter((value) => value >= memory.domain()[0]! && value <= memory.domain()[1]!)
  const parts = [
    text(LEFT, 18, 'Memory that the host has lost (MB), over instances'), ...powers.map((value) => grid(memory(value), String(value / 1e6))),
    text(LEFT, HEIGHT + 28, 'Start of the i-th instance (ms)'), ...times.ticks(5).map((value) => grid(times(value), String(value))),
    ...[1, 10, 100, 1000].filter((value) => value <= most).flatMap((value) => [text(x(value), HEIGHT - 12, String(value), 'middle'), text(x(value), 2 * HEIGHT - 12, String(value), 'middle')]),
    ...curves.flatMap(({ title, points, times: all }, index) => {
      const colour = COLOURS[index % COLOURS.length]!
      const drawn = points.filter((point) => point.bytes > 0).map((point): [number, number] => [x(point.n), memory(point.bytes)])
      const starts = all.map((ms, at): [number, number] => [x(at + 1), times(ms)])
      const stroke = (d: string | null, width: number) => `<path d="${d ?? ''}" fill="none" stroke="${colour}" stroke-width="${width}"/>`
      return [stroke(path(drawn), 2), ...drawn.map(([cx, cy]) => `<circle cx="${cx.toFixed(1)}" cy="${cy.toFixed(1)}" r="3" fill="${colour}"/>`), stroke(path(starts), 1),
        `<rect x="${WIDTH - RIGHT + 12}" y="${30 + index * 20}" width="10" height="10" fill="${colour}"/>`, text(WIDTH - RIGHT + 28, 39 + index * 20, title)]
    }),
  ]
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${2 * HEIGHT}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>${parts.join('\n')}</svg>\n`
}
