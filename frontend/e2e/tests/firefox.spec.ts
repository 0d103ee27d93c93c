/** The same package, and the console, in Debian's Firefox ESR. */
import type { Page } from 'puppeteer-core'
import { builtIn } from '../support/console.js'
import { badgeSays, hasNumbers, says, inBrowser } from '../support/other-browsers.js'
import { eventually } from '../support/processes.js'
import { addressOf, expect, test } from '../support/test.js'

const newTab = inBrowser('firefox')

test('Firefox follows a run over restarts, in two tabs with one connection', async ({
  site,
  redis,
  broker,
}) => {
  const [one, two] = [await newTab(), await newTab()]
  for (const page of [one, two]) await page.goto(addressOf(site, broker))
  for (const page of [one, two]) await badgeSays(page, /^Redis Streaming$/)
  await broker.untilStreams(1)
  await redis.appendNumbers('42', 1, 200)
  for (const page of [one, two]) await hasNumbers(page, 200)

  await broker.kill()
  for (const page of [one, two]) await badgeSays(page, /^Reconnecting \(\d+\/10\)$/)
  await redis.appendNumbers('42', 201, 300)
  await broker.restart()
  for (const page of [one, two]) await hasNumbers(page, 300)

  await one.close()
  await redis.appendNumbers('42', 301, 400)
  await hasNumbers(two, 400)
  await redis.append('42', 'status', 'completed')
  await badgeSays(two, /^Ended: completed$/)
  await broker.untilStreams(0)
})

const scrolled = (page: Page) =>
  page.$eval('.log', (log) => Math.round(log.scrollHeight - log.scrollTop - log.clientHeight))

test('the console in Firefox shows, follows, searches and folds', async ({ redis, broker }) => {
  await builtIn(broker)
  const page = await newTab()
  await page.setViewport({ width: 1280, height: 800 })
  const complaints: string[] = []
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  await page.goto(broker.url)
  // A list of runs that is not seen is not asked for.
  await page.bringToFront()
  await page.type('[data-shortcut=runs]', '42')
  await page.keyboard.press('Enter')
  await says(page, '.badge', /^Redis Streaming$/)
  await redis.append('42', 'status', 'running')
  await redis.append('42', 'output', '\u001b[31mred\u001b[0m <b>')
  await says(page, '.ansi-red-fg', /^red$/)
  await redis.appendNumbers('42', 1, 300)
  await says(page, '.run-facts', /302 events/)
  await eventually('the tail is followed', async () => (await scrolled(page)) < 2)
  await says(page, '.run-item', /^42.*running/)

  await page.keyboard.press('/')
  await page.keyboard.type('"n":7}')
  await page.keyboard.press('Enter')
  await says(page, '.found', /^1 \/ 1$/)
  await says(page, '[data-state=current]', /\{"n": 7\}/)
  await page.focus('.log')
  await page.keyboard.press('Enter')
  await says(page, '[data-state=current] [role=tree]', /n/)
  const before = await page.$eval('.log', (log) => log.scrollTop)
  await redis.appendNumbers('42', 301, 320)
  await says(page, '.run-facts', /322 events/)
  expect(await page.$eval('.log', (log) => log.scrollTop)).toBe(before)

  await page.click('.to-end')
  await redis.append('42', 'status', 'completed')
  await says(page, '.badge', /^Ended: completed$/)
  await eventually('the end is shown', async () => (await scrolled(page)) < 2)
  await says(page, '[data-mark=end]', /completed, 323 events in all/)
  expect(complaints).toEqual([])
})
