/** One connection of a stream: from the request to the last byte. */
import type { Endpoint } from './endpoint.js'
import { asRuncastError, responseError, RuncastError } from './errors.js'
import { EventStreamParser, type StreamMessage } from './parser.js'

export interface ConnectionOptions {
  endpoint: Endpoint
  path: string
  lastEventId: string | null
  /** Ends the connection; its reason is the error that is returned. */
  signal: AbortSignal
  /** How long silence may last now, in milliseconds. */
  quietMax: () => number
  onResponse: (response: Response) => void
  /** Returns true for the last message to be read. */
  onMessage: (message: StreamMessage) => boolean
  onRetry: (milliseconds: number) => void
  /** The messages of one piece are through; a promise holds further reading. */
  onPiece: () => Promise<void> | undefined
}

/**
 * How a connection came to its end: `stopped` at the message that was the last
 * one, `no_content` with a 204, or `lost`.
 */
export type Outcome =
  | { kind: 'stopped' }
  | { kind: 'no_content' }
  | { kind: 'lost'; error: RuncastError; retryAfter: number }

/** Reads one response to its end. Never throws. */
export async function readConnection(options: ConnectionOptions): Promise<Outcome> {
  const { signal, onPiece } = options
  const abort = new AbortController()
  const forward = () => abort.abort(signal.reason)
  const watchdog = new Watchdog(options.quietMax, () =>
    abort.abort(new RuncastError('silent', 'nothing came for too long')),
  )
  signal.addEventListener('abort', forward)
  try {
    if (signal.aborted) throw signal.reason
    const response = await request(options, abort.signal)
    watchdog.feed()
    if (response.status === 204) return { kind: 'no_content' }
    if (response.status !== 200) {
      const retryAfter = retryAfterMs(response)
      return { kind: 'lost', error: await responseError(response), retryAfter }
    }
    if (!response.headers.get('Content-Type')?.startsWith('text/event-stream') || !response.body) {
      throw new RuncastError('not_a_stream', 'what answered is no event stream', { status: 200 })
    }
    options.onResponse(response)
    let stopped = false
    const parser = new EventStreamParser({
      onRetry: options.onRetry,
      onMessage: (message) => {
        stopped ||= abort.signal.aborted || options.onMessage(message)
      },
    })
    const reader = response.body.getReader()
    for (;;) {
      const { value, done } = await reader.read()
      if (done) throw new RuncastError('closed', 'the stream ended before the run')
      parser.push(value)
      watchdog.feed()
      const full = onPiece()
      if (stopped) return { kind: 'stopped' }
      if (full) {
        watchdog.stop()
        await full
        watchdog.feed()
      }
    }
  } catch (error) {
    const reason: unknown = abort.signal.aborted ? abort.signal.reason : error
    return { kind: 'lost', error: asRuncastError(reason), retryAfter: 0 }
  } finally {
    watchdog.stop()
    signal.removeEventListener('abort', forward)
    abort.abort()
  }
}

function request({ endpoint, path, lastEventId }: ConnectionOptions, signal: AbortSignal) {
  const headers: Record<string, string> = { Accept: 'text/event-stream' }
  if (lastEventId) headers['Last-Event-ID'] = lastEventId
  return endpoint.request(path, { headers, signal, cache: 'no-store' })
}

/** Returns what `Retry-After` says: seconds, or a date; 0 without one. */
function retryAfterMs(response: Response): number {
  const value = response.headers.get('Retry-After') ?? ''
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return ms > 0 ? Math.min(ms, 300_000) : 0
}

/**
 * Calls `bite` when it is not fed for `quietMax()`. Feeding costs a look at the
 * clock: the timer is set again only when it fires.
 */
class Watchdog {
  #fed = Date.now()
  #limit = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  readonly #quietMax: () => number
  readonly #bite: () => void

  constructor(quietMax: () => number, bite: () => void) {
    this.#quietMax = quietMax
    this.#bite = bite
    this.#look()
  }

  feed(): void {
    this.#fed = Date.now()
    // `hello` says how often to expect something: that may be sooner.
    if (this.#timer === undefined || this.#quietMax() !== this.#limit) {
      clearTimeout(this.#timer)
      this.#look()
    }
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  readonly #look = (): void => {
    this.#limit = this.#quietMax()
    const left = this.#fed + this.#limit - Date.now()
    this.#timer = left > 0 ? setTimeout(this.#look, left) : undefined
    if (left <= 0) this.#bite()
  }
}
