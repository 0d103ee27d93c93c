/** Playwright's `test` with a Redis, a broker and a site of each test's own. */
import { expect, test as base, type Locator, type Page } from '@playwright/test'
import { Broker } from './broker.js'
import { SITE_DIRECTORY } from './build-site.js'
import { KubeApi } from './kube-api.js'
import { Redis } from './redis.js'
import { Site } from './site.js'

interface Fixtures {
  redis: Redis
  kube: KubeApi
  broker: Broker
  site: Site
  /** Settings of the broker beside those that every test has. */
  settings: Record<string, string>
}

export const test = base.extend<Fixtures>({
  settings: [{}, { option: true }],
  redis: async ({}, provide) => {
    const redis = await Redis.start()
    await provide(redis)
    await redis.end()
  },
  kube: async ({}, provide) => {
    const kube = await KubeApi.start()
    await provide(kube)
    await kube.end()
  },
  broker: async ({ redis, kube, settings }, provide) => {
    const broker = await Broker.start({
      'redis.url': redis.url,
      'kubectl.extra_args': `--kubeconfig=${kube.kubeconfig}`,
      ...settings,
    })
    await redis.untilLoaded()
    await provide(broker)
    await broker.end()
  },
  site: async ({}, provide) => {
    const site = await Site.start(SITE_DIRECTORY)
    await provide(site)
    await site.end()
  },
})

export { expect }

/** What a test page may be told in its address. */
export type PageOptions = Record<string, string | number | boolean>

/** Returns the address of the page that follows run 42 with the hook. */
export function addressOf(site: Site, broker: Broker, options: PageOptions = {}): string {
  const query = new URLSearchParams({ run: '42', base: broker.url })
  for (const [key, value] of Object.entries(options)) query.set(key, String(value))
  return `${site.url}/?${query.toString()}`
}

/** Opens that page, and returns its badge. */
export async function openRun(
  page: Page,
  site: Site,
  broker: Broker,
  options?: PageOptions,
): Promise<Locator> {
  await page.goto(addressOf(site, broker, options))
  return page.getByRole('status')
}

/** Opens that page, waits until it follows Redis, and returns its badge. */
export async function followRun(
  page: Page,
  site: Site,
  broker: Broker,
  options?: PageOptions,
): Promise<Locator> {
  const badge = await openRun(page, site, broker, options)
  await expect(badge).toHaveText('Redis Streaming')
  return badge
}

/** Returns field `n` of every event that the page's hook gave, in order. */
export function numbers(page: Page): Promise<number[]> {
  return page.evaluate(() => window.numbers())
}

/** Returns 1 to `last`. */
export function upTo(last: number): number[] {
  return Array.from({ length: last }, (_, i) => i + 1)
}
