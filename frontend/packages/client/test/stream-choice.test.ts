/** Which broker and backend a stream turns to, and with which token. */
import { describe, expect, test, vi } from 'vitest'
import { AgentStream } from '../src/index.js'
import { frame, goodbye, output, settle } from './fake-broker.js'
import { broker, follow, streams } from './follow.js'

describe('fallback', () => {
  test('turns to the other backend when all attempts failed, and only once', async () => {
    const { stream, events } = follow({ fallback: true, attempts: { redis: 1, kubectl: 1 } })
    await settle()
    const answer = await broker.open()
    await answer.send(output(1))
    await answer.cut()
    await vi.advanceTimersByTimeAsync(1_000)
    await broker.last.refuse()
    expect(broker.last.path).toBe('/api/v1/runs/42/stream?backend=kubectl')
    expect(broker.last.headers['Last-Event-ID']).toBeUndefined()
    expect(events.at(-1)).toEqual({
      type: 'source',
      from: 'redis',
      to: 'kubectl',
      reason: 'attempts_exhausted',
    })
    expect(stream.state).toMatchObject({ connection: 'reconnecting', backend: 'kubectl' })
    await broker.last.refuse()
    await vi.advanceTimersByTimeAsync(30_000)
    await broker.last.refuse()
    expect(stream.state).toMatchObject({ connection: 'failed', backend: 'kubectl' })

    stream.reconnect()
    await settle()
    expect(broker.last.path).toBe('/api/v1/runs/42/stream/redis')
    expect(broker.last.headers['Last-Event-ID']).toBe('1-1-0')
  })

  test('may turn back once the other one has worked', async () => {
    const { stream } = follow({ fallback: true, attempts: { redis: 0, kubectl: 0 } })
    await settle()
    await broker.last.refuse()
    const answer = await broker.open('kubectl')
    expect(stream.state).toMatchObject({ connection: 'open', backend: 'kubectl' })
    await answer.cut()
    expect(broker.last.path).toBe('/api/v1/runs/42/stream/redis')
  })

  test('turns at once from a backend that is switched off', async () => {
    follow({ backend: 'kubectl', fallback: true })
    await settle()
    const type = 'urn:runcast:problem:backend-disabled'
    await broker.last.answer(404, { type, title: '', status: 404, detail: '' })
    expect(broker.last.path).toBe('/api/v1/runs/42/stream/redis')
  })
})

describe('configuration', () => {
  test('comes from the broker if nothing names a backend', async () => {
    const { stream } = follow({ backend: undefined })
    await settle()
    expect(broker.last.path).toBe('/api/v1/config')
    await broker.last.answer(503)
    expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt: 1 })
    await vi.advanceTimersByTimeAsync(1_000)
    await broker.last.answer(200, {
      default_backend: 'kubectl',
      backends: ['redis', 'kubectl'],
      heartbeat_seconds: 30,
      reconnect: { redis: 10, kubectl: 5 },
    })
    expect(broker.last.path).toBe('/api/v1/runs/42/stream?backend=kubectl')
    expect(stream.state).toMatchObject({ backend: 'kubectl', attemptsMax: 5 })
  })

  test('comes from the environment, which options override', async () => {
    vi.stubEnv('NEXT_PUBLIC_STREAMING_BACKEND', 'kubectl')
    vi.stubEnv('NEXT_PUBLIC_API_BASE_URL', 'http://elsewhere/base/')
    follow({ backend: undefined, baseUrl: undefined })
    await settle()
    expect(broker.last.url).toBe('http://elsewhere/base/api/v1/runs/42/stream?backend=kubectl')
    follow()
    await settle()
    expect(broker.last.url).toBe('http://broker/api/v1/runs/42/stream/redis')
    vi.unstubAllEnvs()
  })

  test('that is wrong is said at once', () => {
    vi.stubEnv('NEXT_PUBLIC_STREAMING_BACKEND', 'kafka')
    expect(() => new AgentStream('42', { baseUrl: 'http://broker' })).toThrow(
      'NEXT_PUBLIC_STREAMING_BACKEND is "kafka"; it is redis, kubectl or auto',
    )
    vi.unstubAllEnvs()
    expect(() => new AgentStream('42', { backend: 'redis' })).toThrow('NEXT_PUBLIC_API_BASE_URL')
  })

  test('`auto` leaves the choice to the broker', async () => {
    const { stream } = follow({ backend: 'auto' })
    await settle()
    expect(broker.last.path).toBe('/api/v1/runs/42/stream?backend=auto')
    await broker.open('kubectl')
    expect(stream.state).toMatchObject({ backend: 'kubectl', attemptsMax: 3 })
  })

  test('a run id is escaped', async () => {
    const stream = new AgentStream('a/../b?c', { baseUrl: 'http://broker', backend: 'redis' })
    expect(stream.state.connection).toBe('idle')
    const odd = new AgentStream('a/../b?c', {
      baseUrl: 'http://broker',
      backend: 'redis',
      fetch: broker.fetch,
    })
    streams.push(odd)
    odd.start()
    await settle()
    expect(broker.last.path).toBe('/api/v1/runs/a%2F..%2Fb%3Fc/stream/redis')
  })
})

describe('a token', () => {
  test('is asked for once, again after a 401, and given up after two', async () => {
    const token = vi.fn(
      ({ reason }: { reason: string }) => `t-${reason}-${token.mock.calls.length}`,
    )
    const { stream } = follow({ token, headers: () => ({ 'X-Mine': '1' }) })
    await settle()
    expect(broker.last.headers).toMatchObject({ Authorization: 'Bearer t-first-1', 'X-Mine': '1' })
    await broker.last.answer(401)
    expect(broker.last.headers.Authorization).toBe('Bearer t-unauthorized-2')
    const answer = await broker.open()
    await answer.cut()
    await vi.advanceTimersByTimeAsync(1_000)
    expect(broker.last.headers.Authorization).toBe('Bearer t-unauthorized-2')
    await broker.last.answer(401)
    await broker.last.answer(401)
    expect(stream.state.connection).toBe('failed')
    expect(token).toHaveBeenCalledTimes(3)
  })

  test('that is the same again after a 401 is not tried again', async () => {
    const token = vi.fn(() => 't')
    const { stream } = follow({ token })
    await settle()
    await broker.last.answer(401)
    expect(token).toHaveBeenCalledTimes(2)
    expect(broker.asked).toHaveLength(1)
    expect(stream.state).toMatchObject({ connection: 'failed', error: { status: 401 } })
  })

  test('is asked for before it ends, while the stream is open', async () => {
    let n = 0
    const token = vi.fn(() => ({ token: `t${(n += 1)}`, expiresAt: Date.now() + 300_000 }))
    const { stream } = follow({ token })
    await settle()
    const answer = await broker.open()
    for (let i = 0; i < 26; i += 1) {
      await vi.advanceTimersByTimeAsync(10_000)
      await answer.send(frame('heartbeat', { ts: '', last_event_ms: null }))
    }
    expect(token).toHaveBeenCalledTimes(1)
    await vi.advanceTimersByTimeAsync(10_000)
    expect(token).toHaveBeenCalledTimes(2)
    expect(broker.asked).toHaveLength(1)
    await answer.send(goodbye('token_expired'))
    await vi.advanceTimersByTimeAsync(1_000)
    expect(broker.last.headers.Authorization).toBe('Bearer t2')
    expect(token).toHaveBeenCalledTimes(2)
    stream.close()
    await vi.advanceTimersByTimeAsync(600_000)
    expect(token).toHaveBeenCalledTimes(2)
  })

  test('that is a JWT says itself when it ends', async () => {
    const claims = () => btoa(JSON.stringify({ exp: Math.floor(Date.now() / 1000) + 40 }))
    const token = vi.fn(() => `x.${claims().replace(/=+$/, '')}.y`)
    follow({ token })
    await settle()
    await broker.last.refuse()
    await vi.advanceTimersByTimeAsync(1_000)
    expect(token).toHaveBeenCalledTimes(1)
    await vi.advanceTimersByTimeAsync(20_000)
    await broker.last.refuse()
    await vi.advanceTimersByTimeAsync(2_000)
    expect(token).toHaveBeenCalledTimes(2)
    expect(token).toHaveBeenLastCalledWith({ reason: 'expiring' })
  })

  test('whose provider fails costs an attempt', async () => {
    const token = vi.fn().mockRejectedValueOnce(new Error('no login')).mockResolvedValue('t')
    const { stream } = follow({ token })
    await settle()
    expect(stream.state).toMatchObject({ connection: 'reconnecting', attempt: 1 })
    expect(stream.state.error?.code).toBe('token')
    await vi.advanceTimersByTimeAsync(1_000)
    expect(broker.last.headers.Authorization).toBe('Bearer t')
  })
})
