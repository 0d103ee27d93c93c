/** What a device and whoever holds a stream do to it. */
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { frame, output, settle } from './fake-broker.js'
import { broker, follow, ids } from './follow.js'

describe('without a network', () => {
  const onLine = (value: boolean) => {
    vi.stubGlobal('navigator', { onLine: value })
    globalThis.dispatchEvent(new Event(value ? 'online' : 'offline'))
  }

  beforeEach(() => {
    // Node has neither.
    const target = new EventTarget()
    vi.stubGlobal('addEventListener', target.addEventListener.bind(target))
    vi.stubGlobal('removeEventListener', target.removeEventListener.bind(target))
    vi.stubGlobal('dispatchEvent', target.dispatchEvent.bind(target))
    vi.stubGlobal('navigator', { onLine: true })
  })

  test('it pauses, spends no attempt, and goes on at once', async () => {
    const { stream, states } = follow()
    await settle()
    const answer = await broker.open()
    await answer.send(output(1))
    onLine(false)
    await settle()
    expect(answer.cancelled).toBe(true)
    expect(stream.state).toMatchObject({ connection: 'offline', attempt: 0 })
    await vi.advanceTimersByTimeAsync(29_000)
    expect(broker.asked).toHaveLength(1)
    onLine(true)
    await settle()
    expect(broker.asked).toHaveLength(2)
    expect(broker.last.headers['Last-Event-ID']).toBe('1-1-0')
    await broker.open()
    expect(states).toEqual(['connecting', 'open', 'offline', 'reconnecting', 'open'])
  })

  test('it does not believe a device that says so for ever', async () => {
    const { stream } = follow()
    await settle()
    onLine(false)
    await settle()
    for (let i = 2; i < 6; i += 1) {
      await vi.advanceTimersByTimeAsync(30_000)
      expect(broker.asked).toHaveLength(i)
      if (i < 5) await broker.last.refuse()
      expect(stream.state).toMatchObject({ connection: 'offline', attempt: 0 })
    }
    await broker.open()
    expect(stream.state.connection).toBe('open')
  })

  test('it tries once, and then waits', async () => {
    onLine(false)
    const { stream } = follow()
    await settle()
    await broker.last.refuse()
    expect(stream.state).toMatchObject({ connection: 'offline', attempt: 0 })
  })

  test('a wait for the next attempt becomes a wait for the network', async () => {
    const { stream } = follow()
    await settle()
    await broker.last.refuse()
    onLine(false)
    expect(stream.state.connection).toBe('offline')
    onLine(true)
    await settle()
    expect(broker.asked).toHaveLength(2)
  })
})

describe('whoever holds it', () => {
  test('pauses and resumes without losing the place', async () => {
    const { stream } = follow()
    await settle()
    const answer = await broker.open()
    await answer.send(output(1))
    stream.pause()
    await settle()
    expect(answer.cancelled).toBe(true)
    expect(stream.state.connection).toBe('paused')
    await vi.advanceTimersByTimeAsync(3_600_000)
    expect(broker.asked).toHaveLength(1)
    stream.resume()
    await settle()
    expect(broker.last.headers['Last-Event-ID']).toBe('1-1-0')
  })

  test('ends it with an AbortSignal, whatever it does', async () => {
    for (const phase of ['asking', 'open', 'waiting'] as const) {
      const abort = new AbortController()
      const { stream } = follow({ signal: abort.signal })
      await settle()
      const asked = broker.asked.length
      if (phase === 'open') await broker.open()
      if (phase === 'waiting') await broker.last.refuse()
      abort.abort()
      await vi.advanceTimersByTimeAsync(60_000)
      expect(stream.state.connection).toBe('closed')
      expect(broker.last.signal?.aborted).toBe(true)
      stream.reconnect()
      stream.start()
      await settle()
      expect(broker.asked).toHaveLength(asked)
      expect(vi.getTimerCount()).toBe(0)
    }
    const { stream } = follow({ signal: AbortSignal.abort() })
    expect(stream.state.connection).toBe('closed')
  })

  test('reconnects while a connection is being made, and hears only the new one', async () => {
    const { stream, events } = follow()
    await settle()
    const old = await broker.open()
    stream.reconnect()
    await settle()
    await old.send(output(1))
    expect(broker.asked).toHaveLength(2)
    const fresh = await broker.open()
    await fresh.send(output(2))
    expect(ids(events)).toEqual(['1-2-0'])
    expect(stream.state).toMatchObject({ connection: 'open', attempt: 0 })
  })

  test('closes it in a listener, and hears nothing more', async () => {
    const { stream, events } = follow()
    stream.on('output', () => stream.close())
    await settle()
    const answer = await broker.open()
    await answer.send(output(1) + output(2) + output(3))
    expect(ids(events)).toEqual(['1-1-0'])
  })

  test('iterates over the run', async () => {
    const { stream } = follow()
    const seen: string[] = []
    const done = (async () => {
      for await (const event of stream) seen.push(event.type)
    })()
    await settle()
    const answer = await broker.open()
    await answer.send(output(1) + frame('heartbeat', {}) + output(2, 'log'))
    await answer.send(frame('end', { status: 'failed', events: 2 }, '1-2-0-end'))
    await done
    expect(seen).toEqual(['output', 'log', 'end'])
    for await (const event of stream) expect.unreachable(event.type)
  })

  test('iterates, and is told when it is given up', async () => {
    const { stream } = follow({ attempts: { redis: 0 } })
    const iteration = stream[Symbol.asyncIterator]()
    const next = iteration.next()
    const told = expect(next).rejects.toMatchObject({ code: 'network' })
    await settle()
    await broker.last.refuse()
    await told
  })

  test('leaves the loop, and the connection is closed', async () => {
    const { stream } = follow()
    const done = (async () => {
      for await (const event of stream) if (event.type === 'output') break
    })()
    await settle()
    const answer = await broker.open()
    await answer.send(output(1))
    await done
    expect(stream.state.connection).toBe('closed')
    expect(answer.cancelled).toBe(true)
  })

  test('is slow, and the stream waits without holding more than a thousand', async () => {
    const { stream } = follow()
    const iteration = stream[Symbol.asyncIterator]()
    let told = 0
    stream.on('output', () => (told += 1))
    await settle()
    const answer = await broker.open('redis', 4)
    for (let n = 0; n < 3_000; n += 1) void answer.send(output(n))
    await settle()
    expect(told).toBe(1_000)
    // It is slow, not dead: nothing is lost, and nobody bites.
    await vi.advanceTimersByTimeAsync(60_000)
    expect(stream.state.connection).toBe('open')
    for (let n = 0; n < 3_000; n += 1) {
      const { value } = (await iteration.next()) as { value: { data: { n: number } } }
      expect(value.data.n).toBe(n)
    }
    expect(told).toBe(3_000)
  })
})
