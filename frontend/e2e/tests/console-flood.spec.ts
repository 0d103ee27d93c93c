/** The console in a flood: 5,000 events a second. */
import { badge, distance, log, open, rows } from '../support/console.js'
import { floodPage } from '../support/flood.js'
import { expect, test } from '../support/test.js'

// What is recorded of the page would count as its own work. A run of plain events
// has the broker's memory alone: some seconds of the flood, should the machine
// stand still for as long.
test.use({ trace: 'off', settings: { 'hub.ring_bytes': '32MiB' } })

const RATE = 5_000
const SECONDS = 8

/** Lines in colours, and every third one an object. */
function data(n: number): string {
  const line = `\u001b[3${1 + (n % 6)}mline ${n}\u001b[0m ${'word '.repeat(n % 12)}`
  return n % 3 === 0 ? JSON.stringify({ n, line }) : line
}

test('a flood is drawn as it comes, and every event counts', async ({ page, redis, broker }) => {
  test.setTimeout(120_000)
  await open(page, broker, '?run=42')
  await expect(badge(page)).toHaveText('Redis Streaming')
  const sent = RATE * SECONDS
  await floodPage(page, redis, { rate: RATE, seconds: SECONDS, data }, () =>
    expect(page.locator('.run-facts')).toContainText(`${sent.toLocaleString('en')} `),
  )
  await expect(rows(page).last()).toContainText(`line ${sent}`)
  expect(await distance(page)).toBeLessThan(2)

  // It can be searched at once, from the first line to the last.
  await page.keyboard.press('/')
  await page.keyboard.type('line 1234')
  await expect(page.locator('.found')).toHaveText('11')
})

/** As many rows as the page holds. */
const ROWS_MAX = 1_000_000
const CHUNK = 30_000

test('a million lines are as smooth as a few, and as quickly searched', async ({
  page,
  redis,
  broker,
}) => {
  test.setTimeout(300_000)
  await open(page, broker, '?run=42')
  await expect(badge(page)).toHaveText('Redis Streaming')
  const facts = page.locator('.run-facts')
  // No faster than the page takes them: what it has not taken only the broker holds.
  let sent = 0
  while (sent < ROWS_MAX - CHUNK / 3) {
    const batch = redis.client.multi()
    for (let i = 0; i < CHUNK; i += 1) batch.publish('run:42:output:stdout', `line ${(sent += 1)}`)
    await batch.execAsPipeline()
    await expect(facts).toContainText(`${sent.toLocaleString('en')} `, { timeout: 60_000 })
  }
  await log(page).focus()
  await page.keyboard.press('g')
  await expect(rows(page).first()).toHaveText(/line 1$/)
  await page.keyboard.press('G')
  await expect(rows(page).last()).toContainText(`line ${sent}`)

  // On, until the oldest have to go.
  const [rate, seconds] = [RATE, 6]
  const first = sent
  await floodPage(page, redis, { rate, seconds, data: (n) => `line ${first + n}` }, () =>
    expect(facts).toContainText(`${(first + rate * seconds).toLocaleString('en')} `),
  )
  sent += rate * seconds
  expect(sent).toBeGreaterThan(ROWS_MAX)
  await expect(rows(page).last()).toContainText(`line ${sent}`)
  await expect(page.locator('.dropped')).toContainText('100,000 events at the beginning are let go')

  await page.keyboard.press('/')
  await page.keyboard.type(`line ${ROWS_MAX - 1}`)
  await expect(page.locator('.found')).toHaveText('1')
  await page.keyboard.press('Enter')
  await expect(page.locator('.found')).toHaveText('1 / 1')
  await expect(page.locator('[data-state=current]')).toContainText(`line ${ROWS_MAX - 1}`)
})
