/** Many tabs on one run, and other places where the package runs. */
import type { Page } from '@playwright/test'
import { AgentStream, RuncastClient } from '@runcast/client'
import { eventually } from '../support/processes.js'
import { expect, followRun, numbers, openRun, test, upTo } from '../support/test.js'

test('eight tabs on one run share one connection', async ({ context, site, redis, broker }) => {
  await redis.client.ping()
  const tabs: Page[] = await Promise.all(upTo(8).map(() => context.newPage()))
  await broker.untilStreams(0)
  await Promise.all(tabs.map((tab) => openRun(tab, site, broker, { backend: 'redis' })))
  for (const tab of tabs) await expect(tab.getByRole('status')).toHaveText('Redis Streaming')
  await broker.untilStreams(1)
  await redis.appendNumbers('42', 1, 300)
  for (const tab of tabs) await expect.poll(() => numbers(tab)).toEqual(upTo(300))

  // A tab that comes late has the run from its beginning.
  const late = await context.newPage()
  await openRun(late, site, broker, { backend: 'redis' })
  await expect.poll(() => numbers(late)).toEqual(upTo(300))
  tabs.push(late)
  await broker.untilStreams(1)

  // Whoever leads goes, again and again, while events come.
  let last = 300
  while (tabs.length > 3) {
    await tabs.shift()?.close()
    await redis.appendNumbers('42', last + 1, last + 50)
    last += 50
    for (const tab of tabs) await expect.poll(() => numbers(tab)).toEqual(upTo(last))
    await broker.untilStreams(1)
  }

  // The broker goes: all say so, and all go on.
  await broker.kill()
  for (const tab of tabs) await expect(tab.getByRole('status')).toHaveText(/Reconnecting/)
  await redis.appendNumbers('42', last + 1, last + 50)
  last += 50
  await broker.restart()
  for (const tab of tabs) await expect.poll(() => numbers(tab)).toEqual(upTo(last))
  await broker.untilStreams(1)

  // One pauses: the others do not.
  await tabs[0]?.getByRole('button', { name: 'Pause' }).click()
  await redis.append('42', 'output', { n: (last += 1) })
  for (const tab of tabs.slice(1)) await expect.poll(() => numbers(tab)).toEqual(upTo(last))
  if (tabs[0]) expect(await numbers(tabs[0])).toEqual(upTo(last - 1))
  await tabs[0]?.getByRole('button', { name: 'Resume' }).click()
  for (const tab of tabs) await expect.poll(() => numbers(tab)).toEqual(upTo(last))
  await broker.untilStreams(1)

  await redis.append('42', 'status', 'completed')
  for (const tab of tabs) await expect(tab.getByRole('status')).toHaveText('Ended: completed')
  await broker.untilStreams(0)
  for (const tab of tabs) expect(await numbers(tab)).toEqual(upTo(last))
})

test('tabs of other runs, or that do not want to share, have their own', async ({
  context,
  site,
  broker,
}) => {
  const open = async (options: Record<string, string | boolean>) => {
    const tab = await context.newPage()
    await followRun(tab, site, broker, { backend: 'redis', ...options })
  }
  await open({})
  await open({})
  await broker.untilStreams(1)
  await open({ run: '43' })
  await open({ shared: false })
  await broker.untilStreams(3)
})

test('a tab that reads slowly delays no other, and misses nothing', async ({
  context,
  site,
  redis,
  broker,
}) => {
  const [slow, quick] = [await context.newPage(), await context.newPage()]
  await slow.goto(`${site.url}/plain.html`)
  // It leads, and takes nothing.
  await slow.evaluate((baseUrl) => {
    const stream = window.runcast.openStream('42', { baseUrl, backend: 'redis', shared: true })
    Object.assign(window, { iteration: stream[Symbol.asyncIterator](), stream })
  }, broker.url)
  await broker.untilStreams(1)
  await openRun(quick, site, broker, { backend: 'redis' })
  await redis.appendNumbers('42', 1, 3_000)
  await expect.poll(() => numbers(quick)).toEqual(upTo(3_000))
  const taken = await slow.evaluate(async () => {
    const { iteration } = window as unknown as { iteration: AsyncIterator<{ data: { n: number } }> }
    const got: number[] = []
    while (got.length < 3_000) {
      const { value } = (await iteration.next()) as { value: { data: { n: number } } }
      got.push(value.data.n)
    }
    return got
  })
  expect(taken).toEqual(upTo(3_000))
  await broker.untilStreams(1)
})

test('in a worker', async ({ page, site, redis, broker }) => {
  await page.goto(`${site.url}/plain.html`)
  await redis.append('42', 'output', { n: 1 })
  await redis.append('42', 'status', 'failed')
  const types = await page.evaluate((url) => window.followInWorker(url, '42'), broker.url)
  expect(types).toEqual(['output', 'status', 'end'])
})

test('in Node', async ({ redis, broker }) => {
  const api = new RuncastClient({ baseUrl: broker.url })
  expect(await api.config()).toMatchObject({ default_backend: 'redis', heartbeat_seconds: 30 })
  const { ids } = await api.publish('42', [
    { kind: 'output', data: { n: 1 } },
    { kind: 'log', source: 'x', data: { level: 'error', msg: 'oh' } },
  ])
  expect(ids).toHaveLength(2)
  await redis.append('42', 'output', { n: 2 })
  await api.publishText('42', 'a\nb', { kind: 'output', source: 'make' })

  const page = await api.history('42', { limit: 2 })
  expect(page.events.map(({ type }) => type)).toEqual(['output', 'log'])
  const rest = await api.history('42', { after: page.next ?? '' })
  expect(rest.events.flatMap((event) => ('data' in event ? [event.data] : []))).toEqual([
    { n: 2 },
    'a',
    'b',
  ])
  expect((await api.runs()).runs).toMatchObject([{ run_id: '42', ended: false }])
  expect(await api.run('42')).toMatchObject({ events: { output: 4, status: 0, log: 1 } })
  expect(await api.health()).toMatchObject({ status: 'ok' })
  await expect(api.run('a b')).rejects.toMatchObject({ status: 400 })

  const seen: unknown[] = []
  const stream = new AgentStream('42', { baseUrl: broker.url })
  const following = (async () => {
    for await (const event of stream) seen.push('data' in event ? event.data : event.type)
  })()
  await eventually('all came', () => seen.length === 5)
  await api.publish('42', { kind: 'status', data: 'completed' })
  await following
  expect(seen.slice(-2)).toEqual(['completed', 'end'])
  expect(stream.state).toMatchObject({ connection: 'ended', status: 'completed' })
})
