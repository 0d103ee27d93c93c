/**
 * Browsers as people have them: Debian's Firefox ESR, which Playwright does not
 * drive, and Chromium with tabs that are really hidden behind others, which
 * Playwright forbids.
 */
import { existsSync } from 'node:fs'
import puppeteer, { type Browser, type Page } from 'puppeteer-core'
import { CHROMIUM } from './chromium.js'
import { eventually } from './processes.js'
import { expect, test, upTo } from './test.js'

const FIREFOX = process.env.RUNCAST_TEST_FIREFOX ?? '/usr/bin/firefox-esr'

export type BrowserName = 'chrome' | 'firefox'

/** Has the tests around run in a browser of their own; returns what opens a tab. */
export function inBrowser(name: BrowserName): () => Promise<Page> {
  let browser: Browser | undefined
  test.beforeAll(async () => {
    test.skip(name === 'firefox' && !existsSync(FIREFOX), `no ${FIREFOX} here`)
    browser = await (name === 'firefox' ? launchFirefox() : launchChromium())
  })
  test.afterAll(() => browser?.close())
  return () => {
    if (!browser) throw new Error('tabs are opened by tests only')
    return browser.newPage()
  }
}

function launchFirefox(): Promise<Browser> {
  return puppeteer.launch({ browser: 'firefox', executablePath: FIREFOX })
}

function launchChromium(): Promise<Browser> {
  return puppeteer.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu'],
    // They make a hidden tab run like one in front.
    ignoreDefaultArgs: [
      '--disable-renderer-backgrounding',
      '--disable-background-timer-throttling',
      '--disable-backgrounding-occluded-windows',
    ],
  })
}

/** Waits until what an element says matches `words`. */
export async function says(page: Page, selector: string, words: RegExp): Promise<void> {
  let text: string | null = null
  try {
    await eventually(`${selector} says ${words.source}`, async () => {
      text = await page.$eval(selector, (element) => element.textContent).catch(() => null)
      return words.test(text ?? '')
    })
  } catch (error) {
    throw new Error(`${String(error)}, but ${JSON.stringify(text)}`, { cause: error })
  }
}

/** Waits until the badge says `words`. */
export const badgeSays = (page: Page, words: RegExp) => says(page, '[role=status]', words)

/** Waits until the hook has given 1 to `last`, each once and in order. */
export async function hasNumbers(page: Page, last: number): Promise<void> {
  await eventually(`${last} events`, async () => {
    return (await page.evaluate(() => window.numbers().length)) >= last
  })
  expect(await page.evaluate(() => window.numbers())).toEqual(upTo(last))
}
