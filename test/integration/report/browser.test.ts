import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { renderHtml } from '../../../src/compare/report/html.js'
import { openBrowser, openPage, type View } from '../../lib/browser.js'
import { comparison, hostile } from '../../unit/compare/fixture.js'

let browser: Browser
let scratch: string
const phone: View = { width: 375, scheme: 'light' }
const desk: View = { width: 1200, scheme: 'light' }
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'hull-report-'))
  browser = await openBrowser()
})
afterAll(async () => {
  await browser?.close()
  await rm(scratch, { recursive: true, force: true })
})

async function show(html: string, view: View): Promise<{ page: Page; complaints: string[] }> {
  const path = join(scratch, 'report.html')
  await writeFile(path, html)
  return openPage(browser, path, view)
}

/** Everything that draws, with its size on the screen in CSS pixels. */
const shapes = (page: Page, selector: string) => page.evaluate<{ tag: string; width: number; height: number; fill: string; stroke: string }[]>(`[...document.querySelectorAll(${JSON.stringify(selector)})].map((one) => {
  const { width, height } = one.getBoundingClientRect(), style = getComputedStyle(one)
  return { tag: one.tagName, width, height, fill: style.fill, stroke: style.stroke }
})`)
const background = (page: Page) => page.evaluate<string>('getComputedStyle(document.body).backgroundColor')

describe('the report in a browser', () => {
  it('draws every plot, says nothing on the console, and loads nothing', async () => {
    const { page, complaints } = await show(renderHtml(comparison()), desk)
    for (const [section, count, marks] of [['start', 2, 'circle'], ['memory', 1, 'rect'], ['density', 2, 'path.curve'], ['perf', 1, 'rect'], ['surface', 1, 'rect']] as const) {
      const plots = await shapes(page, `#${section} .plot > svg`)
      expect(plots.length, section).toBe(count)
      for (const { width, height } of plots) expect(Math.min(width, height), section).toBeGreaterThan(60)
      const drawn = await shapes(page, `#${section} .plot > svg ${marks}`)
      expect(drawn.filter(({ width, height, fill, stroke }) => width > 0 && height > 0 && (fill.startsWith('rgb') || stroke.startsWith('rgb'))).length, section).toBe(drawn.length)
      expect(drawn.length, section).toBeGreaterThan(1)
    }
    expect(new Set((await shapes(page, '#memory rect[class^="part-"]')).map(({ fill }) => fill)).size).toBe(4)
    expect(complaints).toEqual([])
  })
  it('fits a phone without scrolling sideways, in words that can be read', async () => {
    const { page, complaints } = await show(renderHtml(comparison()), phone)
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(375)
    const heights = await page.evaluate<number[]>('[...document.querySelectorAll(".plot > svg .label")].map((one) => one.getBoundingClientRect().height)')
    expect(Math.min(...heights)).toBeGreaterThan(9)
    expect(complaints).toEqual([])
  })
  it('is dark where the reader wants that, and light on paper', async () => {
    const light = await show(renderHtml(comparison()), desk)
    const dark = await show(renderHtml(comparison()), { ...desk, scheme: 'dark' })
    const colors = [await background(light.page), await background(dark.page)]
    expect(colors[0]).toBe('rgb(255, 255, 255)')
    expect(colors[1]).not.toBe(colors[0])
    const bars = await Promise.all([light, dark].map(async ({ page }) => (await shapes(page, '#perf rect'))[0]!.fill))
    expect(bars[0]).not.toBe(bars[1])
    await dark.page.emulateMedia({ media: 'print' })
    expect(await background(dark.page)).toBe('rgb(255, 255, 255)')
    expect((await dark.page.pdf({ format: 'A4' })).subarray(0, 5).toString()).toBe('%PDF-')
  })
  it('runs nothing that an image, a host or a workload put into it, and is as wide as before', async () => {
    const attack = '</title></style></script><script>alert(1)</script><img src="http://127.0.0.1:9/x" onerror="alert(2)">"\'><svg onload=alert(3)><style>*{display:none}</style>' + 'W'.repeat(400)
    const { page, complaints } = await show(renderHtml(hostile(attack)), phone)
    expect(await page.evaluate<number[]>('["script", "img", "style", "[onload], [onerror]"].map((selector) => document.querySelectorAll(selector).length)')).toEqual([0, 0, 1, 0])
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(375)
    expect((await page.locator('h1').textContent())).toContain(attack)
    expect(complaints).toEqual([])
  })
  it('would run nothing even if something slipped through', async () => {
    const { page, complaints } = await show(renderHtml(comparison()).replace('<footer>', '<script>document.title = "owned"; alert(1)</script><img src="http://127.0.0.1:9/x"><footer>'), desk)
    expect(complaints.filter((line) => line.startsWith('dialog'))).toEqual([])
    expect(await page.title()).toBe('hull compare debian true')
    for (const what of [/script.*Content Security Policy/, /image.*Content Security Policy/]) expect(complaints.join('\n').toLowerCase()).toMatch(new RegExp(what.source.toLowerCase()))
  })
})
