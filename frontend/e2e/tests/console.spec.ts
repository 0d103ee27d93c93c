/** The console, as the broker serves it: each thing one does with it. */
import type { Locator } from '@playwright/test'
import { badge, distance, log, open, rows } from '../support/console.js'
import { expect, test } from '../support/test.js'

test('a run is found, opened, watched to its end and left', async ({ page, redis, broker }) => {
  await open(page, broker)
  await expect(page.getByRole('heading', { name: 'Choose a run' })).toBeVisible()
  const find = page.getByRole('textbox', { name: 'Find or open a run' })
  await expect(find).toBeFocused()
  await find.fill('42')
  await find.press('Enter')
  await expect(page).toHaveURL(/\?run=42$/)
  await expect(badge(page)).toHaveText('Redis Streaming')
  await redis.append('42', 'status', 'running')
  await redis.append('42', 'output', '\u001b[31mred\u001b[0m <b>')
  await redis.append('42', 'log', { level: 'warn', msg: 'late', ms: 4 })
  const red = page.locator('.ansi-red-fg')
  await expect(red).toHaveText('red')
  await expect(rows(page).filter({ hasText: 'late' })).toContainText('warnlate {"ms": 4}')
  const listed = page.locator('.run-item', { hasText: '42' })
  await expect(listed).toContainText('running')
  await redis.append('42', 'status', { status: 'completed' })
  await expect(badge(page)).toHaveText('Ended: completed')
  await expect(page.locator('[data-mark=end]')).toContainText('completed, 4 events in all')
  await expect(page.getByRole('list', { name: 'Statuses' })).toContainText('completed')
  await page.getByRole('button', { name: /^Succeeded/ }).click()
  await expect(listed).toContainText('completed')
  await find.fill('7')
  await expect(listed).toBeHidden()
  await page.goBack()
  await expect(page.getByRole('heading', { name: 'Choose a run' })).toBeVisible()
  await broker.untilStreams(0)
})

test('filters, search and folding show what one looks for', async ({ page, redis, broker }) => {
  await open(page, broker, '?run=42')
  await expect(badge(page)).toHaveText('Redis Streaming')
  for (let n = 0; n < 300; n += 1) {
    await redis.append('42', 'output', n % 100 === 50 ? `a needle ${n}` : { n, nested: { a: [1] } })
  }
  await redis.append('42', 'log', { level: 'debug', msg: 'whispered' })
  await redis.append('42', 'log', { level: 'error', msg: 'shouted' })
  await expect(rows(page).filter({ hasText: 'shouted' })).toBeVisible()

  await page.getByLabel('Least level of logs').selectOption('warn')
  await expect(rows(page).filter({ hasText: 'whispered' })).toBeHidden()
  await page.getByRole('button', { name: 'output', exact: true }).click()
  await expect(rows(page)).toHaveCount(1)
  await page.getByRole('button', { name: 'output', exact: true }).click()

  await page.keyboard.press('Escape')
  await page.keyboard.press('/')
  await page.keyboard.type('NEEDLE')
  const found = page.locator('.found')
  await expect(found).toHaveText('3')
  const current = page.locator('[data-state=current]')
  for (const [key, place, text] of [
    ['Enter', '1 / 3', 'a needle 50'],
    ['Enter', '2 / 3', 'a needle 150'],
    ['Shift+Enter', '1 / 3', 'a needle 50'],
    ['Shift+Enter', '3 / 3', 'a needle 250'],
  ] as const) {
    await page.keyboard.press(key)
    await expect(found).toHaveText(place)
    await expect(current).toContainText(text)
    await expect(current).toBeInViewport()
  }
  await expect(current.locator('mark')).toHaveText('needle')

  // The next row, by keys; unfolded, and folded again.
  await log(page).focus()
  await page.keyboard.press('j')
  await page.keyboard.press('Enter')
  await expect(current.getByRole('tree')).toContainText('nested')
  await page.keyboard.press('Enter')
  await expect(current.getByRole('tree')).toHaveCount(0)
})

test('the tail is followed until one scrolls up', async ({ page, redis, broker }) => {
  await open(page, broker, '?run=42')
  await expect(badge(page)).toHaveText('Redis Streaming')
  await redis.appendNumbers('42', 1, 200)
  await expect(rows(page).filter({ hasText: '{"n": 200}' })).toBeInViewport()
  await log(page).hover()
  await page.mouse.wheel(0, -600)
  const newest = page.getByRole('button', { name: 'Newest' })
  await expect(newest).toBeVisible()
  const before = await log(page).evaluate((element) => element.scrollTop)
  await redis.appendNumbers('42', 201, 300)
  await expect(page.locator('.run-facts')).toContainText('300 events')
  expect(await log(page).evaluate((element) => element.scrollTop)).toBe(before)
  await newest.click()
  await expect(rows(page).filter({ hasText: '{"n": 300}' })).toBeInViewport()
  await expect(newest).toBeHidden()
  expect(await distance(page)).toBeLessThan(2)
})

test('a link leads to its event', async ({ page, context, redis, broker }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write'])
  await open(page, broker, '?run=42')
  await expect(badge(page)).toHaveText('Redis Streaming')
  await redis.appendNumbers('42', 1, 400)
  await expect(page.locator('.run-facts')).toContainText('400 events')
  await log(page).focus()
  await page.keyboard.press('g')
  const row = rows(page).filter({ hasText: '{"n": 7}' })
  await row.locator('.row-time').click()
  await expect(page.getByText('Link copied')).toBeVisible()
  const link = await page.evaluate(() => navigator.clipboard.readText())
  expect(new URL(link).searchParams.get('event')).toBeTruthy()
  // Also where no times are shown to click on.
  await page.getByLabel('Times').selectOption('none')
  await page.evaluate(() => navigator.clipboard.writeText(''))
  await page.getByLabel('Copy and save').click()
  await page.getByRole('button', { name: 'Copy a link to the chosen event' }).click()
  await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toBe(link)
  const other = await context.newPage()
  await other.goto(link)
  await expect(other.locator('[data-state=current]')).toContainText('{"n": 7}')
  await expect(other.locator('[data-state=current]')).toBeInViewport()
  await other.goto(`${broker.url}/?run=42&event=1-2-3`)
  await expect(other.getByText('not among those that are kept')).toBeVisible()
})

test('what is shown can be saved and copied', async ({ page, context, redis, broker }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write'])
  await open(page, broker, '?run=42')
  await expect(badge(page)).toHaveText('Redis Streaming')
  await redis.client.publish('run:42:output:stdout', '{"id":12345678901234567890}')
  await redis.append('42', 'output', '\u001b[31mred\u001b[0m')
  await expect(rows(page)).toHaveCount(2)
  const menu = page.getByLabel('Copy and save')
  const download = page.waitForEvent('download')
  await menu.click()
  await page.getByRole('button', { name: 'Download as NDJSON' }).click()
  const file = await download
  expect(file.suggestedFilename()).toBe('42.ndjson')
  const chunks: Buffer[] = []
  for await (const chunk of await file.createReadStream()) chunks.push(chunk as Buffer)
  const lines = Buffer.concat(chunks).toString().trim().split('\n')
  expect(lines).toHaveLength(2)
  expect(lines[0]).toContain('"data":{"id":12345678901234567890}')
  await menu.click()
  await page.getByRole('button', { name: 'Copy what is shown' }).click()
  await expect(page.getByText('2 lines copied')).toBeVisible()
  expect(await page.evaluate(() => navigator.clipboard.readText())).toMatch(/ stdout: red$/)
})

test('progress is drawn over itself, and gaps stand in place', async ({ page, redis, broker }) => {
  await open(page, broker, '?run=42')
  await expect(badge(page)).toHaveText('Redis Streaming')
  for (let percent = 0; percent <= 100; percent += 10) {
    await redis.client.publish('run:42:output:stdout', `\r${percent}%`)
  }
  await redis.client.publish('run:42:output:stdout', 'x'.repeat(300_000))
  await redis.client.publish('run:42:output:stdout', 'after')
  await expect(rows(page)).toHaveCount(3)
  await expect(rows(page).nth(0)).toContainText('100%↻ 11')
  await expect(rows(page).nth(1)).toHaveText('1 event missing here: too large')
  await expect(rows(page).nth(2)).toContainText('after')
})

test('the backend is chosen on the page', async ({ page, kube, redis, broker }) => {
  kube.addPod('42')
  kube.log('42', 'from the pod')
  await redis.append('42', 'output', 'from redis')
  await open(page, broker, '?run=42')
  await expect(rows(page)).toContainText('from redis')
  await page.getByLabel('Backend').selectOption('kubectl')
  await expect(page).toHaveURL(/run=42&backend=kubectl/)
  await expect(badge(page)).toHaveText('Kubectl Streaming')
  await expect(rows(page)).toContainText('from the pod')

  // The list has the run once for each backend, and leads to either.
  const [ofKubectl, ofRedis] = ['kubectl', 'redis'].map((name) =>
    page.locator('.run-item', { hasText: name }),
  ) as [Locator, Locator]
  await expect(ofKubectl).toHaveAttribute('aria-current', 'page')
  await expect(ofRedis).not.toHaveAttribute('aria-current')
  await ofRedis.click()
  await expect(page).toHaveURL(/run=42$/)
  await expect(rows(page)).toContainText('from redis')
  await expect(ofRedis).toHaveAttribute('aria-current', 'page')
  await ofKubectl.click()
  await expect(rows(page)).toContainText('from the pod')
})

test('it says why it is quiet, and comes back by itself', async ({ page, redis, broker }) => {
  await open(page, broker, '?run=42')
  await page.getByRole('button', { name: 'Why is it quiet?' }).click()
  await expect(page.getByRole('region', { name: 'quiet' })).toContainText(/nothing/)
  await broker.kill()
  await expect(badge(page)).toHaveText(/Reconnecting/)
  await expect(page.getByRole('alert').first()).toBeVisible()
  await broker.restart()
  await redis.append('42', 'output', 'again')
  await expect(rows(page)).toContainText('again')
  await expect(badge(page)).toHaveText('Redis Streaming')
  await expect(page.getByRole('alert')).toHaveCount(0)
})

test.describe('a broker that remembers little', () => {
  test.use({ settings: { 'hub.ring_bytes': '64KiB' } })

  test('what a page that stood still has missed is told where it is missing', async ({
    page,
    redis,
    broker,
  }) => {
    // On a busy machine the page is told of many holes, and each is looked at.
    test.setTimeout(180_000)
    await open(page, broker, '?run=42')
    await expect(badge(page)).toHaveText('Redis Streaming')
    const sent = 20_000
    const batch = redis.client.multi()
    for (let n = 1; n <= sent; n += 1) {
      batch.publish('run:42:output:stdout', `line ${n} ${'word '.repeat(100)}`)
    }
    // As a page does that is busy with something else.
    const standsStill = page.evaluate(() => {
      const until = performance.now() + 3_000
      while (performance.now() < until);
    })
    await batch.execAsPipeline()
    await standsStill
    await expect(rows(page).last()).toContainText(`line ${sent} `)
    await page.getByLabel('Search in the events').fill('missing here: this page read too slowly')
    await expect(page.locator('.found')).toHaveText(/^\d/)
    const gaps = Number(await page.locator('.found').textContent())
    let told = 0
    for (let at = 1; at <= gaps; at += 1) {
      await page.keyboard.press('Enter')
      await expect(page.locator('.found')).toHaveText(`${at} / ${gaps}`)
      const text = await page.locator('.mark-row[data-state=current]').textContent()
      told += Number(text?.match(/^[\d,]+/)?.[0].replaceAll(',', ''))
    }
    const facts = await page.locator('.run-facts').textContent()
    const shown = Number(facts?.match(/^[\d,]+/)?.[0].replaceAll(',', ''))
    expect(told).toBeGreaterThan(0)
    expect(shown + told).toBe(sent)
  })
})
