/** A token flood: 5,000 events a second for half a minute. */
import { floodPage } from '../support/flood.js'
import { expect, followRun, test } from '../support/test.js'

const RATE = 5_000
const SECONDS = 30

// What is recorded of the page would count as its own work.
test.use({ trace: 'off' })

test('a flood freezes nothing and fills nothing', async ({
  page,
  context,
  site,
  redis,
  broker,
}) => {
  test.setTimeout(120_000)
  await followRun(page, site, broker, { backend: 'redis' })
  const session = await context.newCDPSession(page)
  const heapMiB = async () => {
    await session.send('HeapProfiler.collectGarbage')
    const { usedSize } = await session.send('Runtime.getHeapUsage')
    return usedSize / 2 ** 20
  }
  const sizes: number[] = []
  const flood = {
    rate: RATE,
    seconds: SECONDS,
    data: (n: number) => JSON.stringify({ n, token: 'word '.repeat(1 + (n % 8)) }),
    onSecond: async (second: number) => {
      if (second === 10 || second === SECONDS) sizes.push(await heapMiB())
    },
  }
  await floodPage(page, redis, flood, () =>
    expect(page.locator('#total')).toHaveText(String(SECONDS * RATE)),
  )
  const view = await page.evaluate(() => ({
    gaps: window.view.gaps.length,
    kept: window.view.events.length,
    last: window.view.events.at(-1)?.data.n,
  }))
  expect(view).toEqual({ gaps: 0, kept: 10_000, last: SECONDS * RATE })
  const [early = 0, late = 0] = sizes
  console.info(`heap: ${early.toFixed(1)} MiB after 10 s, ${late.toFixed(1)} MiB at the end`)
  expect(late - early).toBeLessThan(5)
})
