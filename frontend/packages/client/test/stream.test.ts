/** The life of a stream, with the clock stopped. */
import { describe, expect, test, vi } from 'vitest'
import { RecentIds } from '../src/recent-ids.js'
import { frame, goodbye, hello, output, settle } from './fake-broker.js'
import { broker, follow, ids, kinds } from './follow.js'

describe('a stream', () => {
  test('asks for its run, and tells what comes as typed events', async () => {
    const { stream, events, states } = follow({
      kinds: ['output', 'log'],
      sources: ['stdout', 'a&b'],
      logLevel: 'warn',
      from: -5,
    })
    await settle()
    expect(broker.last.url).toBe(
      'http://broker/api/v1/runs/42/stream/redis' +
        '?kinds=output%2Clog&sources=stdout%2Ca%26b&log_level=warn&from=-5',
    )
    expect(broker.last.headers).toEqual({ Accept: 'text/event-stream' })
    const answer = await broker.open()
    await answer.send(
      output(1) +
        frame('gap', { after: null, before: null, missed: 3, reason: 'trimmed' }) +
        frame('source', { from: 'redis', to: 'kubectl', reason: 'failover' }) +
        frame('problem', { type: 'urn:x', title: 't', status: 503, detail: 'd', retryable: true }) +
        frame('something_new', {}) +
        frame('cursor', {}, '1-9-0'),
    )
    expect(kinds(events)).toEqual(['hello', 'output', 'gap', 'source', 'problem', 'cursor'])
    expect(events[1]).toMatchObject({ id: '1-1-0', kind: 'output', data: { n: 1 } })
    expect(events[4]).toMatchObject({ problem: { status: 503 } })
    expect(stream.lastEventId).toBe('1-9-0')
    expect(stream.state).toMatchObject({ connection: 'open', backend: 'kubectl' })
    expect(states).toEqual(['connecting', 'open'])
  })

  test('shows where events come from, there and back, in one connection', async () => {
    const { stream, events } = follow({ backend: 'auto' })
    await settle()
    const answer = await broker.open()
    expect(stream.state.backend).toBe('redis')
    await answer.send(frame('source', { from: 'redis', to: 'kubectl', reason: 'redis-down' }))
    expect(stream.state).toMatchObject({ backend: 'kubectl', attemptsMax: 3 })
    await answer.send(frame('source', { from: 'kubectl', to: 'redis', reason: 'redis-up' }))
    expect(stream.state).toMatchObject({ backend: 'redis', attemptsMax: 10 })
    expect(kinds(events)).toEqual(['hello', 'source', 'source'])
    expect(broker.asked).toHaveLength(1)
  })

  test('goes on where it was, and drops what it has', async () => {
    const { stream, events } = follow()
    await settle()
    const first = await broker.open()
    await first.send(output(1) + output(2) + 'event: output\ndata: {"cut":1}\nid: 1-3-0\n')
    await first.cut()
    expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt: 1 })
    await vi.advanceTimersByTimeAsync(1_000)
    expect(broker.asked).toHaveLength(2)
    expect(broker.last.headers['Last-Event-ID']).toBe('1-2-0')
    const second = await broker.open()
    await second.send(output(2) + output(3))
    expect(ids(events)).toEqual(['1-1-0', '1-2-0', '1-3-0'])
    expect(stream.state).toMatchObject({ connection: 'open', attempt: 1, error: null })
  })

  test('waits as long as `retry` says, or longer, and twice as long each time', async () => {
    const { stream } = follow()
    await settle()
    const waits: number[] = []
    for (let attempt = 1; attempt <= 10; attempt += 1) {
      await broker.last.refuse()
      expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt, attemptsMax: 10 })
      const wait = (stream.state.retryAt ?? 0) - Date.now()
      waits.push(wait)
      await vi.advanceTimersByTimeAsync(wait - 1)
      expect(broker.asked).toHaveLength(attempt)
      await vi.advanceTimersByTimeAsync(1)
      expect(broker.asked).toHaveLength(attempt + 1)
    }
    expect(waits).toEqual([1, 2, 4, 8, 15, 15, 15, 15, 15, 15].map((seconds) => seconds * 1_000))
    await broker.last.refuse()
    expect(stream.state).toMatchObject({ connection: 'failed', retryAt: null })
    expect(stream.state.error).toMatchObject({ code: 'network' })
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(broker.asked).toHaveLength(11)

    stream.reconnect()
    await settle()
    expect(broker.asked).toHaveLength(12)
    expect(stream.state).toMatchObject({ connection: 'connecting', attempt: 0 })
    const answer = await broker.last.stream()
    await answer.send(`retry: 7000\n\n${hello()}`)
    await answer.end()
    expect((stream.state.retryAt ?? 0) - Date.now()).toBe(7_000)
  })

  test('draws its waits from all of the range', async () => {
    vi.mocked(Math.random).mockReturnValue(0)
    const { stream } = follow()
    await settle()
    await broker.last.refuse()
    // At once, since nobody has said `retry` yet.
    expect(broker.asked).toHaveLength(2)
    vi.mocked(Math.random).mockReturnValue(0.999999)
    await broker.last.refuse()
    expect(stream.state.retryAt).toBe(Date.now() + 4_000)
  })

  test('gives kubectl three attempts', async () => {
    const { stream } = follow({ backend: 'kubectl' })
    await settle()
    expect(broker.last.path).toBe('/api/v1/runs/42/stream?backend=kubectl')
    for (let i = 0; i < 4; i += 1) {
      await broker.last.refuse()
      await vi.advanceTimersByTimeAsync(30_000)
    }
    expect(broker.asked).toHaveLength(4)
    expect(stream.state).toMatchObject({ connection: 'failed', attempt: 3, attemptsMax: 3 })
  })

  test('has all attempts again after a healthy minute, not before', async () => {
    const { stream } = follow({ attempts: { redis: 2 } })
    await settle()
    const lose = async (afterMs: number) => {
      const answer = await broker.open()
      for (let passed = 0; passed < afterMs; passed += 10_000) {
        await vi.advanceTimersByTimeAsync(Math.min(10_000, afterMs - passed))
        await answer.send(frame('heartbeat', { ts: '', last_event_ms: null }))
      }
      const { attempt } = stream.state
      await answer.cut()
      await vi.advanceTimersByTimeAsync(30_000)
      return attempt
    }
    expect(await lose(59_000)).toBe(0)
    expect(await lose(59_000)).toBe(1)
    expect(await lose(60_000)).toBe(0)
    expect(stream.state.attempt).toBe(1)
    expect(await lose(1_000)).toBe(1)
    expect(await lose(1_000)).toBe(2)
    expect(stream.state.connection).toBe('failed')
  })

  test('has them again after a minute in which events came, but no heartbeat', async () => {
    const { stream } = follow()
    await settle()
    await broker.last.refuse()
    await vi.advanceTimersByTimeAsync(1_000)
    const answer = await broker.open()
    for (let n = 1; n <= 6; n += 1) {
      await vi.advanceTimersByTimeAsync(10_000)
      await answer.send(output(n))
    }
    await answer.cut()
    expect(stream.state.attempt).toBe(1)
  })

  test('connects anew after 2.5 heartbeats without a byte', async () => {
    const { stream } = follow()
    await settle()
    const answer = await broker.open('redis', 4)
    await vi.advanceTimersByTimeAsync(9_000)
    await answer.send(': a comment is a sign of life\n')
    await vi.advanceTimersByTimeAsync(9_999)
    expect(stream.state.connection).toBe('open')
    await vi.advanceTimersByTimeAsync(1)
    expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt: 1 })
    expect(stream.state.error?.code).toBe('silent')
    expect(answer.cancelled).toBe(true)
  })

  test('does not wait for an answer for ever', async () => {
    const { stream } = follow({ connectTimeoutMs: 5_000 })
    await settle()
    await vi.advanceTimersByTimeAsync(5_000)
    expect(stream.state.error?.code).toBe('silent')
    expect(broker.asked[0]?.signal?.aborted).toBe(true)
  })

  test('`end` ends it for good', async () => {
    const { stream, events, states } = follow()
    await settle()
    const answer = await broker.open()
    await answer.send(
      output(1, 'status', 'Completed') +
        frame('end', { status: 'completed', events: 1 }, '1-1-0-end') +
        output(2),
    )
    expect(kinds(events)).toEqual(['hello', 'status', 'end'])
    expect(stream.state).toMatchObject({ connection: 'ended', status: 'completed' })
    expect(stream.state.end).toMatchObject({ status: 'completed', events: 1 })
    expect(states).toEqual(['connecting', 'open', 'ended'])
    stream.start()
    stream.resume()
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(broker.asked).toHaveLength(1)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('204 ends it for good', async () => {
    const { stream } = follow({ lastEventId: '1-1-0-end' })
    await settle()
    expect(broker.last.headers['Last-Event-ID']).toBe('1-1-0-end')
    await broker.last.answer(204)
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(stream.state.connection).toBe('ended')
    expect(broker.asked).toHaveLength(1)
  })

  test('comes back after a planned goodbye without spending an attempt', async () => {
    const { stream, events } = follow()
    await settle()
    for (let i = 1; i <= 15; i += 1) {
      const answer = await broker.open()
      await answer.send(goodbye(i % 2 ? 'drain' : 'max_age', 2_500))
      expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt: 0, error: null })
      await vi.advanceTimersByTimeAsync(2_499)
      expect(broker.asked).toHaveLength(i)
      await vi.advanceTimersByTimeAsync(1)
      expect(broker.asked).toHaveLength(i + 1)
    }
    expect(kinds(events).filter((kind) => kind === 'goodbye')).toHaveLength(15)
  })

  test.each(['overload', 'unavailable', 'internal', 'something_new'])(
    'comes back after goodbye %s at the cost of an attempt',
    async (reason) => {
      const { stream } = follow()
      await settle()
      const answer = await broker.open()
      await answer.send(goodbye(reason))
      expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt: 1 })
      expect(stream.state.error?.code).toBe('unavailable')
    },
  )

  test('a stream that cannot begin costs an attempt, and says why', async () => {
    const { stream } = follow()
    await settle()
    const answer = await broker.last.stream()
    const problem = { type: 'urn:x', title: 't', status: 503, detail: 'no Redis', retryable: true }
    await answer.send(`retry: 1000\n\n${frame('problem', problem)}${goodbye('unavailable')}`)
    expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt: 1 })
    expect(stream.state.error).toMatchObject({ code: 'unavailable', message: 'no Redis', problem })
  })

  test.each([
    [503, { 'Retry-After': '60' }, 60_000],
    [429, { 'Retry-After': '90' }, 90_000],
    [500, {}, 1_000],
    [408, {}, 1_000],
  ])('tries again after %i, when the answer says', async (status, headers, wait) => {
    const { stream } = follow()
    await settle()
    await broker.last.answer(status, undefined, headers)
    expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt: 1 })
    expect((stream.state.retryAt ?? 0) - Date.now()).toBe(wait)
  })

  test.each([400, 401, 403, 404, 405])('gives up after %i', async (status) => {
    const { stream } = follow({ fallback: true })
    await settle()
    const problem = { type: 'urn:runcast:problem:x', title: 'x', status, detail: 'do this' }
    await broker.last.answer(status, problem)
    expect(stream.state.connection).toBe('failed')
    expect(stream.state.error).toMatchObject({ code: 'http', status, problem })
    expect(stream.state.error?.message).toContain('do this')
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(broker.asked).toHaveLength(1)
  })

  test('does not take a web page for a stream', async () => {
    const { stream } = follow()
    await settle()
    await broker.last.answer(200, '<html>', { 'Content-Type': 'text/html' })
    expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt: 1 })
    expect(stream.state.error?.code).toBe('not_a_stream')
  })

  test('ignores what is no JSON, and goes on', async () => {
    const { events, stream } = follow()
    await settle()
    const answer = await broker.open()
    await answer.send(`event: output\ndata: {"cut\nid: 1-1-0\n\n${output(2)}`)
    expect(ids(events)).toEqual(['1-2-0'])
    expect(stream.state.connection).toBe('open')
  })

  test('a listener that throws disturbs nobody', async () => {
    const thrown: unknown[] = []
    const onError = (error: unknown) => void thrown.push(error)
    process.on('uncaughtException', onError)
    const { stream, events } = follow()
    stream.on('output', () => {
      throw new Error('mine')
    })
    await settle()
    const answer = await broker.open()
    await answer.send(output(1) + output(2))
    process.off('uncaughtException', onError)
    expect(ids(events)).toEqual(['1-1-0', '1-2-0'])
    expect(thrown).toHaveLength(2)
  })
})

test('the memory for ids is bounded', () => {
  const recent = new RecentIds()
  const ids = Array.from({ length: 4_096 }, (_, n) => `1-${n}-0`)
  for (const id of ids) expect(recent.add(id)).toBe(true)
  for (const id of ids) expect(recent.add(id)).toBe(false)
  expect(recent.add('new')).toBe(true)
  expect(recent.has('1-0-0')).toBe(false)
  expect(recent.has('1-1-0')).toBe(true)
})

test('the life of a connection is logged under one prefix, or not at all', async () => {
  const lines: string[] = []
  const log = {
    debug: (line: string) => void lines.push(line),
    info: (line: string) => void lines.push(line),
    warn: (line: string) => void lines.push(line),
  }
  follow({ log })
  await settle()
  const answer = await broker.open()
  await answer.cut()
  expect(lines.length).toBeGreaterThan(2)
  for (const line of lines) expect(line).toMatch(/^\[runcast\] 42: /)
  expect(lines.at(-1)).toContain('attempt 1 of 10 in 1000 ms')

  const info = vi.spyOn(console, 'info')
  follow({ log: false })
  // Here, where stdout may be somebody's output, silence is the default.
  follow({ log: undefined })
  await settle()
  expect(info).not.toHaveBeenCalled()
})
