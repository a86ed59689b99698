import { scaleLinear, scaleLog, type ScaleContinuousNumeric } from 'd3-scale'
import type { Subject } from '../../types.js'
import { html, type Markup } from '../markup.js'

/** Units of a plot's width. A phone shows some 340 of its pixels for them: text of 12 stays readable. */
export const WIDTH = 420
/** What a row of a plot takes: a line of text and a mark. */
export const ROW = 42

export type Scale = ScaleContinuousNumeric<number, number>

/** Values that lie further apart than this want a logarithmic axis. */
const FAR = 25

/** An axis for values of at least zero: linear from zero, or logarithmic where the small ones would vanish. */
export function axisFor(values: readonly number[], range: [number, number]): Scale {
  const positive = values.filter((value) => value > 0 && Number.isFinite(value))
  const [least, most] = [Math.min(...positive), Math.max(...positive)]
  if (positive.length === 0) return scaleLinear([0, 1], range)
  return most / least > FAR ? scaleLog([least * 0.8, most * 1.1], range) : scaleLinear([0, most * 1.05], range).nice()
}

/** Positions of marks on an axis: some five, on a logarithmic one the powers of ten, or 1, 2, 5 where those are few. */
export function ticksOf(scale: Scale, count = 5): number[] {
  if (!('base' in scale)) return scale.ticks(count)
  const all = scale.ticks()
  const lead = (value: number) => Math.round(value / 10 ** Math.floor(Math.log10(value) + 1e-9))
  const decades = all.filter((value) => lead(value) === 1)
  return decades.length >= 3 ? decades : all.filter((value) => [1, 2, 5].includes(lead(value)))
}

/** Grid lines with their values below `bottom`. */
export function xAxis(scale: Scale, top: number, bottom: number, format: (value: number) => string): Markup {
  let free = -Infinity
  return html`<g class="axis">${ticksOf(scale).map((tick) => {
    const x = scale(tick)
    const label = format(tick)
    const half = label.length * 3.1
    const center = Math.min(Math.max(x, half), WIDTH - half)
    const shown = center - half > free
    if (shown) free = center + half + 6
    return html`<line x1="${x.toFixed(1)}" x2="${x.toFixed(1)}" y1="${top}" y2="${bottom}"/>${shown && html`<text x="${center.toFixed(1)}" y="${bottom + 14}" text-anchor="middle">${label}</text>`}`
  })}</g>`
}

/** Grid lines with their values left of `left`. */
export function yAxis(scale: Scale, left: number, format: (value: number) => string): Markup {
  return html`<g class="axis">${ticksOf(scale).map((tick) => html`<line x1="${left}" x2="${WIDTH}" y1="${scale(tick).toFixed(1)}" y2="${scale(tick).toFixed(1)}"/><text x="${left - 5}" y="${(scale(tick) + 4).toFixed(1)}" text-anchor="end">${format(tick)}</text>`)}</g>`
}

/** A plot with its title and what it says in words. */
export function plot(title: string, height: number, body: Markup | Markup[], legend?: Markup): Markup {
  return html`<figure class="plot"><figcaption>${title}</figcaption>${legend}<svg viewBox="0 0 ${WIDTH} ${Math.ceil(height)}" role="img" aria-label="${title}">${body}</svg></figure>`
}

/** Swatches with words. */
export const legend = (entries: readonly { className: string; text: string }[]): Markup =>
  html`<ul class="legend">${entries.map(({ className, text }) => html`<li><svg viewBox="0 0 12 12" class="swatch ${className}" aria-hidden="true"><rect width="12" height="12" rx="2"/></svg>${text}</li>`)}</ul>`

/** The class that gives a subject its colour. */
export const classOf = (subject: Subject): string => `s-${subject}`
