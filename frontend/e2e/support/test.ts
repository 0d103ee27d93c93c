/** Playwright's `test` with a Redis, a broker and a site of each test's own. */
import { test as base, type Page } from '@playwright/test'
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

export { expect } from '@playwright/test'

/** What a test page may be told in its address. */
export type PageOptions = Record<string, string | number | boolean>

/** Opens the page that follows a run with the hook. */
export async function openRun(page: Page, site: Site, broker: Broker, options: PageOptions = {}) {
  const query = new URLSearchParams({ run: '42', base: broker.url })
  for (const [key, value] of Object.entries(options)) query.set(key, String(value))
  await page.goto(`${site.url}/?${query.toString()}`)
}

/** Returns field `n` of every event that the page's hook gave, in order. */
export function numbers(page: Page): Promise<number[]> {
  return page.evaluate(() => window.numbers())
}

/** Returns 1 to `last`. */
export function upTo(last: number): number[] {
  return Array.from({ length: last }, (_, i) => i + 1)
}
