/** A run as it happens, and what the badge says of it. */
import { expect, followRun, numbers, openRun, test, upTo } from '../support/test.js'

test('a run is shown as it happens, to its end', async ({ page, site, redis, broker }) => {
  const said: string[] = []
  page.on('console', (message) => said.push(message.text()))
  const badge = await followRun(page, site, broker)
  // Plain and durable ones, as agents publish them.
  await redis.publish('run:42:output:stdout', { n: 1 })
  await expect.poll(() => numbers(page)).toEqual([1])
  await redis.append('42', 'output', { n: 2 })
  await redis.append('42', 'output', '\u001b[31mred\u001b[0m \u2028 <b>')
  await redis.append('42', 'log', { level: 'warn', msg: 'late' })
  await expect(page.locator('#total')).toHaveText('4')
  await redis.append('42', 'status', { status: 'Completed' })
  await expect(badge).toHaveText('Ended: completed')
  expect(await numbers(page)).toEqual([1, 2])
  await broker.untilStreams(0)
  // The address of the broker, what came of it, and its end, under one prefix.
  const ours = said.filter((line) => line.startsWith('[runcast] 42: '))
  expect(ours.join('\n')).toMatch(/connecting to .*\n.*open: redis[^]*ended: completed/)
})

test('the badge says how the connection is', async ({ page, site, broker }) => {
  const badge = await followRun(page, site, broker, { backend: 'redis' })
  await page.getByRole('button', { name: 'Pause' }).click()
  await expect(badge).toHaveText('Paused')
  await broker.untilStreams(0)
  await page.getByRole('button', { name: 'Resume' }).click()
  await expect(badge).toHaveText('Redis Streaming')
  // Some of what it says it says for a tenth of a second.
  await badge.evaluate((element) => {
    const said: string[] = []
    Object.assign(window, { said })
    new MutationObserver(() => said.push(element.textContent)).observe(element, {
      childList: true,
      characterData: true,
      subtree: true,
    })
  })
  await broker.kill()
  await expect
    .poll(() => page.evaluate(() => (window as unknown as { said: string[] }).said))
    .toEqual(expect.arrayContaining(['Reconnecting (1/10)', 'Reconnecting (2/10)']))
  await broker.restart()
  await page.getByRole('button', { name: 'Reconnect' }).click()
  await expect(badge).toHaveText('Redis Streaming')
})

test('a run of kubectl is shown to its end', async ({ page, site, kube, broker }) => {
  kube.addPod('42')
  kube.log('42', '{"n":1}')
  const badge = await openRun(page, site, broker, { backend: 'kubectl' })
  await expect(badge).toHaveText('Kubectl Streaming')
  await expect.poll(() => numbers(page)).toEqual([1])
  kube.log('42', '{"n":2}')
  await expect.poll(() => numbers(page)).toEqual([1, 2])
  kube.finish('42')
  await expect(badge).toHaveText('Ended: succeeded')
})

test('without a network it waits, and goes on at once', async ({ page, site, redis, broker }) => {
  const badge = await followRun(page, site, broker)
  await redis.append('42', 'output', { n: 1 })
  await expect.poll(() => numbers(page)).toEqual([1])
  await page.context().setOffline(true)
  await expect(badge).toHaveText('Offline')
  await broker.untilStreams(0)
  await redis.appendNumbers('42', 2, 20)
  await page.context().setOffline(false)
  await expect(badge).toHaveText('Redis Streaming', { timeout: 2_000 })
  await expect.poll(() => numbers(page)).toEqual(upTo(20))
})

test('clear lets go of what was shown', async ({ page, site, redis, broker }) => {
  await followRun(page, site, broker)
  await redis.appendNumbers('42', 1, 5)
  await expect.poll(() => numbers(page)).toEqual(upTo(5))
  await page.getByRole('button', { name: 'Clear' }).click()
  await expect.poll(() => numbers(page)).toEqual([])
  await redis.append('42', 'output', { n: 6 })
  await expect.poll(() => numbers(page)).toEqual([6])
})
