/** Brokers and Redis that die, and the other backend. */
import { expect, followRun, numbers, openRun, test, upTo } from '../support/test.js'

test('a broker dies and comes back: nothing lost, nothing twice', async ({
  page,
  site,
  redis,
  broker,
}) => {
  const badge = await followRun(page, site, broker)
  await redis.appendNumbers('42', 1, 100)
  await expect.poll(() => numbers(page)).toEqual(upTo(100))
  let last = 100
  for (const how of ['kill', 'terminate', 'kill'] as const) {
    await broker[how]()
    await expect(badge).toHaveText(/Reconnecting/)
    await redis.appendNumbers('42', last + 1, last + 100)
    last += 100
    await broker.restart()
    await expect(badge).toHaveText('Redis Streaming')
    await expect.poll(() => numbers(page)).toEqual(upTo(last))
  }
  await redis.append('42', 'status', 'completed')
  await expect(badge).toHaveText('Ended: completed')
  expect(await numbers(page)).toEqual(upTo(last))
  await expect(page.locator('#gaps')).toHaveText('')
})

test('a broker dies while events come thick and fast', async ({ page, site, redis, broker }) => {
  await followRun(page, site, broker)
  let over = false
  const publishing = (async () => {
    let n = 0
    while (!over) {
      await redis.appendNumbers('42', n + 1, (n += 20))
      // Slow enough for what Redis keeps (10,000) to outlast the outage.
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    return n
  })()
  await expect.poll(async () => (await numbers(page)).length).toBeGreaterThan(200)
  await broker.kill()
  await broker.restart()
  const before = (await numbers(page)).length
  await expect.poll(async () => (await numbers(page)).length).toBeGreaterThan(before + 200)
  over = true
  const last = await publishing
  await expect.poll(async () => (await numbers(page)).at(-1)).toBe(last)
  expect(await numbers(page)).toEqual(upTo(last))
  await expect(page.locator('#gaps')).toHaveText('')
})

test('Redis dies: the stream stays, what is missing is told', async ({
  page,
  site,
  redis,
  broker,
}) => {
  const badge = await followRun(page, site, broker)
  await redis.publish('run:42:output:stdout', { n: 1 })
  await expect.poll(() => numbers(page)).toEqual([1])
  await redis.kill()
  await redis.restart()
  await expect(page.locator('#gaps')).toHaveText('disconnected')
  await expect
    .poll(async () => {
      await redis.publish('run:42:output:stdout', { n: 2 })
      return (await numbers(page)).includes(2)
    })
    .toBe(true)
  await expect(badge).toHaveText('Redis Streaming')
})

test('after ten attempts with redis it turns to kubectl', async ({
  page,
  site,
  redis,
  kube,
  broker,
}) => {
  test.setTimeout(120_000)
  await page.clock.install()
  const badge = await followRun(page, site, broker, { backend: 'redis', fallback: true })
  await redis.appendNumbers('42', 1, 3)
  await expect.poll(() => numbers(page)).toEqual(upTo(3))
  kube.addPod('42')
  kube.log('42', '{"n":101}')
  await redis.kill()
  // Streams that are open stay; a new one cannot begin without Redis.
  await page.getByRole('button', { name: 'Reconnect' }).click()
  const seen = new Set<string>()
  await expect(async () => {
    seen.add((await badge.textContent()) ?? '')
    await page.clock.fastForward(1_000)
    await expect(badge).toHaveText('Kubectl Streaming', { timeout: 20 })
  }).toPass({ intervals: [20], timeout: 100_000 })
  const attempts = upTo(10).map((n) => `Reconnecting (${n}/10)`)
  expect([...seen].filter((text) => text.includes('('))).toEqual(attempts)
  await expect.poll(() => numbers(page)).toEqual([1, 2, 3, 101])
  const sources = await page.evaluate(() => window.view.sources)
  expect(sources).toMatchObject([{ from: 'redis', to: 'kubectl', position: 3 }])
  kube.finish('42', 1)
  await expect(badge).toHaveText('Ended: failed')
})

test('a run id that is none is refused, in the words of the broker', async ({
  page,
  site,
  broker,
}) => {
  const badge = await openRun(page, site, broker, { run: 'a b' })
  await expect(badge).toHaveText('Disconnected')
  await expect(badge).toHaveAttribute('title', /answered 400: .*run id/)
})
