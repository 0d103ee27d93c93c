/** The same package in Debian's Firefox ESR, which Playwright does not drive. */
import { existsSync } from 'node:fs'
import puppeteer, { type Browser, type Page } from 'puppeteer-core'
import { eventually } from '../support/processes.js'
import { expect, test, upTo } from '../support/test.js'

const FIREFOX = process.env.RUNCAST_TEST_FIREFOX ?? '/usr/bin/firefox-esr'

let firefox: Browser

test.beforeAll(async () => {
  test.skip(!existsSync(FIREFOX), `no ${FIREFOX} here`)
  firefox = await puppeteer.launch({ browser: 'firefox', executablePath: FIREFOX })
})

test.afterAll(() => firefox.close())

/** Waits until the badge says `words`. */
async function saysSoon(page: Page, words: RegExp): Promise<void> {
  const badge = () => page.$eval('[role=status]', (element) => element.textContent)
  await eventually(`the badge says ${words.source}`, async () => words.test(await badge()))
}

/** Waits until the hook has given 1 to `last`, each once and in order. */
async function hasSoon(page: Page, last: number): Promise<void> {
  await eventually(`${last} events`, async () => {
    return (await page.evaluate(() => window.numbers().length)) >= last
  })
  expect(await page.evaluate(() => window.numbers())).toEqual(upTo(last))
}

test('Firefox follows a run over restarts, in two tabs with one connection', async ({
  site,
  redis,
  broker,
}) => {
  const address = `${site.url}/?run=42&base=${broker.url}`
  const [one, two] = [await firefox.newPage(), await firefox.newPage()]
  for (const page of [one, two]) await page.goto(address)
  for (const page of [one, two]) await saysSoon(page, /^Redis Streaming$/)
  await broker.untilStreams(1)
  await redis.appendNumbers('42', 1, 200)
  for (const page of [one, two]) await hasSoon(page, 200)

  await broker.kill()
  for (const page of [one, two]) await saysSoon(page, /^Reconnecting \(\d+\/10\)$/)
  await redis.appendNumbers('42', 201, 300)
  await broker.restart()
  for (const page of [one, two]) await hasSoon(page, 300)

  await one.close()
  await redis.appendNumbers('42', 301, 400)
  await hasSoon(two, 400)
  await redis.append('42', 'status', 'completed')
  await saysSoon(two, /^Ended: completed$/)
  await broker.untilStreams(0)
})
