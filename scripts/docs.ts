// make docs: what docs/ shows of a comparison, made from one that was really measured.
//   npx tsx scripts/docs.ts [COMPARISON.json]    default: docs/examples/compare.json
// Writes compare.html (the report), compare.png and compare-dark-phone.png (as Debian's chromium shows it) beside it.
import { writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { renderHtml } from '../src/compare/report/html.js'
import { readComparison } from '../src/compare/stored.js'
import { openBrowser, openPage } from '../test/lib/browser.js'

const source = resolve(process.argv[2] ?? 'docs/examples/compare.json')
const directory = dirname(source)
const page = join(directory, 'compare.html')
await writeFile(page, renderHtml(await readComparison(source)))
const browser = await openBrowser()
try {
  for (const [name, width, scheme] of [['compare.png', 1100, 'light'], ['compare-dark-phone.png', 390, 'dark']] as const) {
    const shown = await openPage(browser, page, { width, scheme })
    if (shown.complaints.length > 0) throw new Error(shown.complaints.join('\n'))
    // The first screens: the whole page is in compare.html.
    await shown.page.screenshot({ path: join(directory, name), clip: { x: 0, y: 0, width, height: Math.min(width * 1.7, await shown.page.evaluate<number>('document.documentElement.scrollHeight')) }, fullPage: true })
    await shown.context.close()
  }
} finally {
  await browser.close()
}
