/** Whether everybody can read the console, and use it on a small screen. */
import AxeBuilder from '@axe-core/playwright'
import type { Broker } from '../support/broker.js'
import type { Redis } from '../support/redis.js'
import { expect, test } from '../support/test.js'

/** A run with one of everything. */
async function publish(redis: Redis, broker: Broker) {
  await redis.append('42', 'status', 'queued')
  await redis.append('42', 'status', { status: 'running', node: 'gpu-3' })
  for (let colour = 0; colour < 8; colour += 1) {
    const text = `\u001b[3${colour}mcolour\u001b[0m \u001b[9${colour}mbright\u001b[0m`
    await redis.append('42', 'output', `${text} \u001b[4${colour}mground\u001b[0m`)
  }
  await redis.append('42', 'output', { step: 3, loss: 0.25, done: false, tags: ['a', null] })
  for (const level of ['trace', 'debug', 'info', 'warn', 'error', 'fatal']) {
    await redis.append('42', 'log', { level, msg: `said at ${level}`, ms: 4 })
  }
  await redis.client.publish('run:42:output:stderr', Buffer.from([0xff, 0x00]).toString('latin1'))
  await redis.client.publish('run:42:output:stdout', 'x'.repeat(300_000))
  await fetch(`${broker.url}/api/v1/runs/43/stream`, { signal: AbortSignal.timeout(500) }).then(
    (response) => response.body?.cancel(),
    () => undefined,
  )
}

for (const colorScheme of ['light', 'dark'] as const) {
  for (const width of [1280, 390]) {
    test(`all can read it: ${colorScheme}, ${width} wide`, async ({ page, redis, broker }) => {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      await page.setViewportSize({ width, height: 900 })
      const check = async () => {
        const { violations } = await new AxeBuilder({ page }).analyze()
        expect(violations).toEqual([])
      }
      await page.goto(broker.url)
      await expect(page.getByText('No runs yet')).toBeVisible()
      await check()
      await page.goto(`${broker.url}/?run=42`)
      await expect(page.locator('.badge')).toHaveText('Redis Streaming')
      await check()
      await publish(redis, broker)
      await expect(page.locator('[data-mark=gap]')).toBeVisible()
      await page.getByLabel('Search in the events').fill('said')
      await page.keyboard.press('Enter')
      await page.locator('.row', { hasText: 'loss' }).getByRole('button').click()
      await expect(page.getByRole('tree')).toBeVisible()
      await check()
      await page.getByLabel('Search in the events').fill('')
      await page.locator('summary').click()
      await check()
      await redis.append('42', 'status', 'failed')
      await expect(page.locator('.badge')).toHaveText('Ended: failed')
      await check()
      // Nothing is wider than the screen.
      const wide = await page.evaluate(() => document.documentElement.scrollWidth)
      expect(wide).toBeLessThanOrEqual(width)
      if (width < 800) {
        await page.getByRole('button', { name: 'All runs' }).click()
        await expect(page.locator('.run-item', { hasText: '42' })).toContainText('failed')
      }
      if (process.env.RUNCAST_SCREENSHOTS) {
        const name = `${process.env.RUNCAST_SCREENSHOTS}/console-${colorScheme}-${width}.png`
        if (width < 800) await page.goBack()
        await page.locator('.row').first().waitFor()
        await page.screenshot({ path: name })
      }
    })
  }
}
