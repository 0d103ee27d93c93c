/**
 * A broker in place of `fetch`, for tests that stop the clock: every request
 * waits until the test answers it. What a real broker does is the business of
 * the browser tests.
 */
import { vi } from 'vitest'

export interface Asked {
  url: string
  path: string
  headers: Record<string, string>
  signal: AbortSignal | null
  /** Answers with a status, a body and headers. */
  answer: (status: number, body?: unknown, headers?: Record<string, string>) => Promise<void>
  /** Answers with a stream. */
  stream: (backend?: string) => Promise<Answer>
  /** There is no connection. */
  refuse: () => Promise<void>
}

/** A stream that is being answered. */
export interface Answer {
  send: (text: string) => Promise<void>
  /** Ends the response in good order. */
  end: () => Promise<void>
  /** Breaks the connection. */
  cut: () => Promise<void>
  readonly cancelled: boolean
}

/** Lets everything happen that needs no time to pass. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 20; i += 1) await vi.advanceTimersByTimeAsync(0)
}

export class FakeBroker {
  /** Requests in the order in which they came. */
  readonly asked: Asked[] = []

  readonly fetch: typeof fetch = (input, init) => {
    const url = input as string
    return new Promise((resolve, reject) => {
      const signal = init?.signal ?? null
      const abort = () => reject(signal?.reason as Error)
      if (signal?.aborted) abort()
      signal?.addEventListener('abort', abort)
      this.asked.push({
        url,
        path: url.replace(/^http:\/\/[^/]+/, ''),
        headers: init?.headers as Record<string, string>,
        signal,
        answer: async (status, body, headers = {}) => {
          const text = body === undefined ? null : JSON.stringify(body)
          resolve(new Response(text, { status, headers }))
          await settle()
        },
        stream: async (backend = 'redis') => {
          const answer = streamAnswer(signal)
          const headers = {
            'Content-Type': 'text/event-stream',
            'X-Streaming-Backend': backend,
          }
          resolve(new Response(answer.body, { status: 200, headers }))
          await settle()
          return answer
        },
        refuse: async () => {
          reject(new TypeError('fetch failed'))
          await settle()
        },
      })
    })
  }

  /** The last request. */
  get last(): Asked {
    const last = this.asked.at(-1)
    if (!last) throw new Error('nothing was asked')
    return last
  }

  /** Answers the last request with a stream that says hello. */
  async open(backend = 'redis', heartbeat = 30): Promise<Answer> {
    const answer = await this.last.stream(backend)
    await answer.send(`retry: 1000\n\n${hello(backend, heartbeat)}`)
    return answer
  }
}

function streamAnswer(signal: AbortSignal | null) {
  let controller: ReadableStreamDefaultController<Uint8Array>
  let cancelled = false
  const body = new ReadableStream<Uint8Array>({
    start: (given) => void (controller = given),
    cancel: () => void (cancelled = true),
  })
  signal?.addEventListener('abort', () => {
    if (cancelled) return
    cancelled = true
    controller.error(signal.reason)
  })
  const encoder = new TextEncoder()
  const act = async (what: () => void) => {
    if (!cancelled) what()
    await settle()
  }
  return {
    body,
    send: (text: string) => act(() => controller.enqueue(encoder.encode(text))),
    end: () => act(() => controller.close()),
    cut: () => act(() => controller.error(new TypeError('network error'))),
    get cancelled() {
      return cancelled
    },
  }
}

export function frame(event: string, data: unknown, id?: string): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n${id ? `id: ${id}\n` : ''}\n`
}

export function hello(backend = 'redis', heartbeat_seconds = 30): string {
  return frame('hello', {
    v: 1,
    run_id: '42',
    backend,
    resume: 'live',
    cursor: null,
    heartbeat_seconds,
  })
}

export function output(n: number, kind = 'output', data: unknown = { n }): string {
  const ts = '2026-11-23T20:00:00.123Z'
  const envelope = { run_id: '42', kind, source: 'stdout', ts, backend: 'redis', data }
  return frame(kind, envelope, `1-${n}-0`)
}

export function goodbye(reason: string, retry = 1_000): string {
  return `event: goodbye\ndata: {"reason":"${reason}"}\nretry: ${retry}\n\n`
}
