/** Tabs behind other tabs: no frames, and timers once a second or less. */
import type { Page } from 'puppeteer-core'
import { badgeSays, hasNumbers, inBrowser } from '../support/other-browsers.js'
import { addressOf, expect, test } from '../support/test.js'

const visibility = (page: Page) => page.evaluate(() => document.visibilityState)

// Silence of two and a half seconds counts as a dead connection.
test.use({ settings: { 'heartbeat.interval': '1s' } })

for (const browser of ['chrome', 'firefox'] as const) {
  test.describe(browser, () => {
    const newTab = inBrowser(browser)

    test('a hidden tab keeps its connection, and comes back by itself', async ({
      site,
      redis,
      broker,
    }) => {
      const [hidden, front] = [await newTab(), await newTab()]
      await hidden.goto(addressOf(site, broker))
      await badgeSays(hidden, /^Redis Streaming$/)
      await front.bringToFront()
      await expect.poll(() => visibility(hidden)).toBe('hidden')
      const asked: string[] = []
      hidden.on('request', (request) => asked.push(request.url()))

      await redis.appendNumbers('42', 1, 500)
      await hasNumbers(hidden, 500)
      const beats = await broker.metric('runcast_heartbeats_total')
      await expect.poll(() => broker.metric('runcast_heartbeats_total')).toBeGreaterThan(beats + 5)
      expect(asked).toEqual([])
      expect(await broker.metric('runcast_sessions_opened_total')).toBe(1)

      await broker.kill()
      await badgeSays(hidden, /^Reconnecting/)
      await redis.appendNumbers('42', 501, 600)
      await broker.restart()
      await hasNumbers(hidden, 600)
      await badgeSays(hidden, /^Redis Streaming$/)
      expect(await visibility(hidden)).toBe('hidden')
      await hidden.bringToFront()
      await redis.append('42', 'status', 'completed')
      await badgeSays(hidden, /^Ended: completed$/)
    })
  })
}
