import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core'

/** Debian's (scripts/setup --test). */
const PROGRAM = process.env['CHROMIUM'] ?? '/usr/bin/chromium'

export interface View { width: number; scheme: 'light' | 'dark' }

/** A browser without a sandbox of its own: it runs as root, in scripts/isolated, and sees pages of ours alone. */
export const openBrowser = (): Promise<Browser> => chromium.launch({ executablePath: PROGRAM, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'], timeout: 120_000 })

/** A page from its HTML, offline, in a window of that width; `complaints` has all that the console, scripts, the policy and requests say. */
export async function openPage(browser: Browser, path: string, { width, scheme }: View): Promise<{ page: Page; context: BrowserContext; complaints: string[] }> {
  const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme: scheme, offline: true, deviceScaleFactor: width < 600 ? 2 : 1, reducedMotion: 'reduce' })
  context.setDefaultTimeout(60_000)
  const page = await context.newPage()
  const complaints: string[] = []
  page.on('console', (message) => complaints.push(`console ${message.type()}: ${message.text()}`))
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`))
  page.on('dialog', (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`)
    void dialog.dismiss()
  })
  page.on('request', (request) => {
    if (request.url() !== `file://${path}`) complaints.push(`request: ${request.url()}`)
  })
  await page.goto(`file://${path}`)
  return { page, context, complaints }
}
