import { describe, expect, it } from 'vitest'
import { renderHtml } from '../../../src/compare/report/html.js'
import { escape, html } from '../../../src/compare/report/markup.js'
import { axisFor, ticksOf } from '../../../src/compare/report/plots/frame.js'
import { measured } from '../../../src/compare/statistics.js'
import type { Comparison } from '../../../src/compare/types.js'
import { comparison, hostile } from './fixture.js'

describe('markup', () => {
  it('escapes all that is not markup, in lists too, and leaves out nothing and false', () => {
    expect(html`<a href="${'"><b>'}">${['<i>', html`<b>${'&'}</b>`, null, undefined, false, 0]}</a>`.text).toBe('<a href="&quot;&gt;&lt;b&gt;">&lt;i&gt;<b>&amp;</b>0</a>')
    expect(escape('\'\u0000\u001b\u202e\n\t')).toBe('&#39;\ufffd\ufffd\ufffd\n\t')
    expect(html`${{ text: '<x>' }}`.text).toBe('[object Object]')
  })
})

describe('axes', () => {
  it('are linear from zero, or logarithmic where the small would vanish', () => {
    expect(axisFor([10, 100], [0, 100])(0)).toBe(0)
    const far = axisFor([1, 1000], [0, 100])
    expect(far(1)).toBeGreaterThan(0)
    expect(ticksOf(far)).toEqual([1, 10, 100, 1000])
    expect(axisFor([], [0, 100])(0)).toBe(0)
    expect(axisFor([0, -1, NaN], [0, 100])(1)).toBe(100)
  })
})

/** Tags that are open, by a reader that knows void elements; throws where one closes that is not. */
function unclosed(page: string): string[] {
  const open: string[] = []
  for (const [, end, name, rest] of page.replace(/<style>.*?<\/style>/s, '').matchAll(/<(\/?)([a-z][a-z0-9]*)((?:\s+[a-z-]+(?:="[^"<>]*")?)*\s*\/?)>/gi)) {
    if (['meta', '!doctype', 'img'].includes(name!) || rest!.endsWith('/')) continue
    if (end !== '/') open.push(name!)
    else if (open.pop() !== name) throw new Error(`</${name}> closes another`)
  }
  return open
}

const svgNumbers = (page: string) => [...page.matchAll(/ (?:x|y|x1|x2|y1|y2|cx|cy|r|d|width|height|viewBox)="([^"]*)"/g)].map(([, value]) => value!)

describe('the page', () => {
  it('is whole, has no script and loads nothing', () => {
    const page = renderHtml(comparison())
    expect(unclosed(page)).toEqual([])
    expect(page).not.toMatch(/<script|<link|<iframe|<img|@import|url\(|https?:|javascript:| on[a-z]+=| style="/i)
    expect(page).toMatch(/content="default-src &#39;none&#39;; style-src &#39;sha256-/)
    expect(page.match(/<figure class="plot">/g)).toHaveLength(7)
    for (const text of ['70.0 ms', '≈ 327', '24.0 GB of RAM', 'gVisor: runsc is not installed', 'HOST', 'docker run --rm debian true', '×5.86 ±6 %', '<p>host kernel functions run, container</p><pre>hull-surface functions 1</pre>', 'the kernel refuses to trace functions']) expect(page).toContain(text)
  })
  it('has ratios to the container where the bare host was not measured', () => {
    const one = comparison()
    expect(renderHtml(one)).toContain('share of the bare host&#39;s')
    for (const figure of one.sections.perf!.figures) figure.results.host = { missing: 'by root only' }
    const page = renderHtml(one)
    expect(page).toContain('share of the container&#39;s')
    expect(page).toMatch(/class="s-vm"><rect[^>]*\/><text[^>]*>×0\.12</)
  })
  it('escapes every string that is not ours', () => {
    const attack = '<script>alert(1)</script>"\'&\u001b[31m\u202e'
    const page = renderHtml(hostile(attack))
    expect(page).not.toContain('<script')
    expect(page).not.toMatch(/[\u001b\u202e]/)
    expect(page.split('&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;').length).toBeGreaterThan(20)
    expect(unclosed(page)).toEqual([])
  })
  it.each<[string, (one: Comparison) => void]>([
    ['nothing at all', (one) => { one.sections = {}; one.isolations = []; one.warnings = [] }],
    ['one row', (one) => { one.sections.start!.figures[0]!.results = { process: measured([1], 'x') } }],
    ['the same row ten times', (one) => { one.sections.start!.figures[0]!.results = { process: measured(Array<number>(10).fill(5), 'x'), vm: measured(Array<number>(10).fill(5), 'x') } }],
    ['zeros', (one) => { for (const section of [one.sections.start!, one.sections.perf!]) for (const figure of section.figures) figure.results = { host: measured([0, 0], 'x'), process: measured([0, 0], 'x') } }],
    ['thousands of rows', (one) => { one.sections.start!.figures[0]!.results.vm = measured(Array.from({ length: 2000 }, (_, i) => 1 + (i % 97)), 'x') }],
    ['instances that cost nothing, or less', (one) => { Object.assign(one.sections.density!.curves.process as object, { bytesEach: -5e5, predicted: -1 }); one.sections.memory!.figures[0]!.results.process = measured([-4e6, -3e6], 'x') }],
    ['nothing that started', (one) => { Object.assign(one.sections.density!.curves.vm as object, { steps: [], started: 0, alive: 0, stopped: 'no memory' }) }],
    ['a host without memory', (one) => { Object.assign(one.sections.density!, { total: 0, available: 0 }) }],
    ['far ratios', (one) => { one.sections.perf!.figures[0]!.results.vm = measured([1e-9], 'x'); one.sections.perf!.figures[1]!.results.process = measured([1e15], 'x') }],
    ['parts of no size', (one) => { one.sections.memory!.parts = { process: { workload: 0, guestKernel: 0, vmm: 0, supervisor: 0 } }; one.sections.memory!.figures = [] }],
  ])('is whole with %s', (_name, change) => {
    const one = comparison()
    change(one)
    const page = renderHtml(one)
    expect(unclosed(page)).toEqual([])
    for (const value of svgNumbers(page)) expect(value).not.toMatch(/NaN|Infinity|undefined|null|e[+-]\d/)
  })
})
