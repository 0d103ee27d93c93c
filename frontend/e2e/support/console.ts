/** The console, as the broker serves it. */
import { expect, type Page } from '@playwright/test'
import type { Broker } from './broker.js'

/** Opens the console; the test fails if the page complains of anything. */
export async function open(page: Page, broker: Broker, search = '') {
  await builtIn(broker)
  page.on('pageerror', (error) => expect.soft(error).toBeUndefined())
  page.on('console', (message) => {
    const complaint = message.type() === 'error' ? message.text() : ''
    // Of the browser itself, where a test ends the broker.
    if (!complaint.startsWith('Failed to load resource')) expect.soft(complaint).toBe('')
  })
  await page.goto(`${broker.url}/${search}`)
}

export const badge = (page: Page) => page.locator('.badge')
export const rows = (page: Page) => page.locator('.row')
export const log = (page: Page) => page.getByRole('log')
export const distance = (page: Page) =>
  log(page).evaluate((e) => e.scrollHeight - e.scrollTop - e.clientHeight)

/** Says how to build the console if the broker has none. */
export async function builtIn(broker: Broker): Promise<void> {
  const page = await (await fetch(broker.url)).text()
  if (page.includes('./assets/')) return
  throw new Error('the console is not built in: make console, then build the broker')
}
