/**
 * `AgentStream`: follows one run over as many connections as it takes, each
 * going on where the last one broke, until the run's end.
 */
import { CONFIG_PATH, type BrokerConfig } from './api.js'
import { backoffDelay } from './backoff.js'
import { BaseStream } from './base-stream.js'
import { readConnection, type Outcome } from './connection.js'
import { Endpoint } from './endpoint.js'
import { asRuncastError, RuncastError } from './errors.js'
import {
  statusText,
  type Backend,
  type Problem,
  type RunEvent,
  type StreamEvent,
} from './events.js'
import { attemptsMax, configuredBackend, streamPath, type AgentStreamOptions } from './options.js'
import type { StreamMessage } from './parser.js'
import { RecentIds } from './recent-ids.js'
import { requestJson } from './request.js'

/** Silence of so many heartbeats means that the connection is dead. */
const HEARTBEATS_MISSED = 2.5
/** A connection that lived so long gives all attempts back. */
const HEALTHY_MS = 60_000
/** How often to look for oneself whether the network is really away. */
const OFFLINE_PROBE_MS = 30_000
const CONNECT_TIMEOUT_MS = 30_000
/** After a `hello`, these farewells are planned and cost no attempt. */
const PLANNED = new Set(['drain', 'max_age', 'token_expired', 'slow_client'])

/** Follows a run over a connection of its own. */
export class AgentStream extends BaseStream {
  readonly #options: AgentStreamOptions
  readonly #endpoint: Endpoint
  readonly #recent = new RecentIds()
  #lastEventId: string | null
  /** From `start` to `pause`, `close` or the end; aborted, its loop ends. */
  #life: AbortController | undefined
  /** The connection of the moment; aborted, the loop makes another one. */
  #attempt: AbortController | undefined
  #wake: (() => void) | undefined
  #drained: (() => void) | undefined
  #config: BrokerConfig | undefined
  /** What the URL asks for; undefined until configuration is read. */
  #choice: string | undefined
  /** What it asked for at first. */
  #preferred: string | undefined
  /** The places in the run on other backends. */
  readonly #cursors = new Map<string, string | null>()
  #tried = new Set<string>()
  #offline = false
  #retryMs = 0
  #heartbeatMs = 0
  #openedAt = 0
  /** The last connection's farewell, or the trouble it told of. */
  #goodbye: string | undefined
  #problem: Problem | undefined

  constructor(runId: string, options: AgentStreamOptions = {}) {
    super(runId, options)
    this.#options = options
    this.#endpoint = new Endpoint(options)
    this.#choice = configuredBackend(options.backend)
    this.#lastEventId = options.lastEventId ?? null
    this.obeySignal()
  }

  get lastEventId(): string | null {
    return this.#lastEventId
  }

  protected begin(): void {
    const life = (this.#life = new AbortController())
    globalThis.addEventListener?.('online', this.#onOnline, { signal: life.signal })
    globalThis.addEventListener?.('offline', this.#onOffline, { signal: life.signal })
    void this.#live(life.signal)
  }

  pause(): void {
    if (!this.#life) return
    this.stop()
    this.tell('paused')
    this.out.set({ connection: 'paused', retryAt: null })
  }

  reconnect(): void {
    if (this.isClosed) return
    this.stop()
    this.#tried.clear()
    this.out.set({ attempt: 0, error: null, retryAt: null })
    if (this.#preferred) this.#switchTo(this.#preferred, 'reconnect')
    this.begin()
  }

  // ---- the life of a stream -------------------------------------------------

  async #live(life: AbortSignal): Promise<void> {
    this.out.set({ connection: this.#offline ? 'offline' : this.#connecting() })
    while (!life.aborted) {
      const wait = this.#judge(await this.#connect(life), life)
      if (wait === undefined || life.aborted) return
      await this.#sleep(wait, life)
    }
  }

  #connecting() {
    const first = this.out.state.attempt === 0 && this.#openedAt === 0
    return first ? 'connecting' : 'reconnecting'
  }

  /** Makes one connection and reads it to its end. */
  async #connect(life: AbortSignal): Promise<Outcome> {
    const attempt = (this.#attempt = new AbortController())
    life.addEventListener('abort', () => attempt.abort(), { signal: attempt.signal })
    this.#goodbye = this.#problem = undefined
    this.#heartbeatMs = this.#openedAt = 0
    try {
      this.#choice ??= await this.#chooseBackend(attempt.signal)
    } catch (error) {
      const reason: unknown = attempt.signal.aborted ? attempt.signal.reason : error
      attempt.abort()
      return { kind: 'lost', error: asRuncastError(reason), retryAfter: 0 }
    }
    this.#preferred ??= this.#choice
    if (this.#choice !== 'auto') this.#useBackend(this.#choice)
    const path = streamPath(this.runId, this.#choice, this.#options)
    this.tell(`connecting to ${this.#endpoint.baseUrl}${path}`)
    const outcome = await readConnection({
      endpoint: this.#endpoint,
      path,
      lastEventId: this.#lastEventId,
      signal: attempt.signal,
      quietMax: () =>
        this.#heartbeatMs * HEARTBEATS_MISSED ||
        (this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS),
      onResponse: (response) => {
        this.#useBackend(response.headers.get('X-Streaming-Backend'))
        this.#endpoint.keepFresh(attempt.signal)
      },
      onMessage: (message) => this.#take(message),
      onRetry: (milliseconds) => (this.#retryMs = milliseconds),
      onPiece: () => this.#flush(),
    })
    attempt.abort()
    this.out.flush()
    return outcome
  }

  async #chooseBackend(signal: AbortSignal): Promise<string> {
    const config = await requestJson<BrokerConfig>(this.#endpoint, CONFIG_PATH, { signal })
    this.#config = config
    this.tell(`the broker's default backend is ${config.default_backend}`)
    return config.default_backend
  }

  #useBackend(backend: string | null): void {
    if (!backend || backend === this.out.state.backend) return
    this.out.set({
      backend: backend as Backend,
      attemptsMax: attemptsMax(backend as Backend, this.#options, this.#config),
    })
  }

  /** Returns how long to wait before the next attempt; undefined if there is none. */
  #judge(outcome: Outcome, life: AbortSignal): number | undefined {
    if (life.aborted) return undefined
    const ended = outcome.kind === 'stopped' && this.#goodbye === undefined
    if (ended || outcome.kind === 'no_content') {
      this.#end()
      return
    }
    const healthy = this.#openedAt > 0 && Date.now() - this.#openedAt >= HEALTHY_MS
    if (healthy) this.out.set({ attempt: 0 })
    if (this.#openedAt > 0 && this.#goodbye && PLANNED.has(this.#goodbye)) {
      this.tell(`the broker said goodbye (${this.#goodbye}), back in ${this.#retryMs} ms`)
      this.out.set({ connection: 'reconnecting', retryAt: Date.now() + this.#retryMs })
      return this.#retryMs
    }
    const error = this.#errorOf(outcome)
    if (isOffline()) this.#offline = true
    if (this.#offline) {
      this.tell('offline', 'warn')
      this.out.set({ connection: 'offline', error, retryAt: null })
      return OFFLINE_PROBE_MS
    }
    const attempt = this.out.state.attempt + 1
    if (!error.retryable || attempt > this.out.state.attemptsMax) return this.#giveUp(error)
    const least = Math.max(this.#retryMs, outcome.kind === 'lost' ? outcome.retryAfter : 0)
    const wait = backoffDelay(attempt, least, Math.random)
    this.tell(
      `${error.message}; attempt ${attempt} of ${this.out.state.attemptsMax} in ${wait} ms`,
      'warn',
    )
    this.out.set({ connection: 'reconnecting', attempt, error, retryAt: Date.now() + wait })
    return wait
  }

  #errorOf(outcome: Outcome): RuncastError {
    if (outcome.kind === 'lost' && !this.#goodbye) return outcome.error
    const problem = this.#problem
    const message = problem?.detail ?? `the broker closed the stream: ${this.#goodbye ?? ''}`
    return new RuncastError('unavailable', message, { problem })
  }

  #end(): undefined {
    const { end, status } = this.out.state
    this.stop()
    this.tell(`ended: ${end?.status ?? status ?? 'nothing more will come'}`)
    this.out.set({ connection: 'ended', error: null, retryAt: null, attempt: 0 })
    this.out.finish()
  }

  /** Turns to the other backend if that is allowed, else fails. */
  #giveUp(error: RuncastError): number | undefined {
    const to = this.#fallbackFor(error)
    if (to) {
      this.tell(`${error.message}; falling back to ${to}`, 'warn')
      this.out.set({ connection: 'reconnecting', attempt: 0, error, retryAt: null })
      this.#switchTo(to, error.retryable ? 'attempts_exhausted' : 'backend_disabled')
      return 0
    }
    this.stop()
    this.tell(`given up: ${error.message}`, 'warn')
    this.out.set({ connection: 'failed', error, retryAt: null })
    this.out.finish(error)
    return undefined
  }

  #fallbackFor(error: RuncastError): Backend | undefined {
    const from = this.#choice
    const disabled = error.problem?.type.endsWith(':backend-disabled')
    if (!this.#options.fallback || !(error.retryable || disabled)) return undefined
    if (from !== 'redis' && from !== 'kubectl') return undefined
    const to = from === 'redis' ? 'kubectl' : 'redis'
    this.#tried.add(from)
    const offered = this.#config?.backends.includes(to) ?? true
    return offered && !this.#tried.has(to) ? to : undefined
  }

  /** Goes on with another backend, where it was there: its ids are others. */
  #switchTo(to: string, reason: string): void {
    const from = this.#choice
    if (from === undefined || from === to) return
    this.#cursors.set(from, this.#lastEventId)
    this.#lastEventId = this.#cursors.get(to) ?? null
    this.#choice = to
    this.#retryMs = 0
    this.out.deliver({ type: 'source', from: from as Backend, to: to as Backend, reason })
    this.out.flush()
  }

  // ---- what comes -----------------------------------------------------------

  /** Takes a message; returns true if nothing after it is to be read. */
  #take({ event: type, data, id }: StreamMessage): boolean {
    let body: object
    try {
      body = (this.#options.parseJson ?? JSON.parse)(data) as object
    } catch {
      this.tell(`an event "${type}" that is no JSON was ignored`, 'warn')
      return false
    }
    if (id) this.#lastEventId = id
    switch (type) {
      case 'output':
      case 'status':
      case 'log':
        if (!id || this.#recent.add(id)) this.#run({ ...body, type, id: id ?? '' } as RunEvent)
        return false
      case 'problem':
        this.#problem = body as Problem
        this.tell(`problem: ${this.#problem.detail}`, 'warn')
        this.out.deliver({ type, problem: this.#problem })
        return false
      case 'hello':
      case 'heartbeat':
      case 'cursor':
      case 'gap':
      case 'source':
      case 'goodbye':
      case 'end':
        return this.#housekeep({ ...body, type, ...(id && { id }) } as StreamEvent)
      default:
        // A newer broker's.
        return false
    }
  }

  #run(event: RunEvent): void {
    if (event.type === 'status')
      this.out.set({ status: statusText(event.data) ?? this.out.state.status })
    this.out.deliver(event)
  }

  #housekeep(event: StreamEvent): boolean {
    if (event.type === 'hello') {
      this.#heartbeatMs = event.heartbeat_seconds * 1000
      this.#openedAt = Date.now()
      this.#tried.clear()
      this.#offline = false
      this.#useBackend(event.backend)
      this.tell(`open: ${event.backend}, ${event.resume}`)
      this.out.set({ connection: 'open', error: null, retryAt: null, end: null })
    } else if (event.type === 'source') {
      this.#useBackend(event.to)
    } else if (event.type === 'gap') {
      this.tell(`gap: ${event.missed ?? 'some'} events missing (${event.reason})`, 'warn')
    } else if (event.type === 'goodbye') {
      this.#goodbye = event.reason
    } else if (event.type === 'end') {
      this.out.set({ end: event, status: event.status })
    } else if (event.type === 'heartbeat' && this.out.state.attempt > 0) {
      if (Date.now() - this.#openedAt >= HEALTHY_MS) this.out.set({ attempt: 0 })
    }
    this.out.deliver(event)
    return event.type === 'goodbye' || event.type === 'end'
  }

  /** Hands on what came together. Waits while an iteration is behind. */
  #flush(): Promise<void> | undefined {
    this.out.flush()
    if (!this.out.full) return undefined
    return new Promise((resolve) => {
      this.#drained = () => {
        if (!this.#life || !this.out.full) resolve()
      }
    })
  }

  // ---- small parts ----------------------------------------------------------

  protected onRoom(): void {
    this.#drained?.()
  }

  readonly #onOnline = (): void => {
    if (!this.#offline) return
    this.tell('online')
    this.#offline = false
    this.out.set({ connection: 'reconnecting' })
    this.#wake?.()
  }

  readonly #onOffline = (): void => {
    this.#offline = true
    this.#attempt?.abort(new RuncastError('network', 'the device is offline'))
    if (!this.#wake) return
    this.out.set({ connection: 'offline', retryAt: null })
  }

  protected stop(): void {
    this.#life?.abort()
    this.#life = undefined
    this.#wake?.()
    this.#drained?.()
  }

  #sleep(milliseconds: number, life: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wake?.(), milliseconds)
      this.#wake = () => {
        clearTimeout(timer)
        this.#wake = undefined
        if (!life.aborted && !this.#offline) this.out.set({ retryAt: null })
        resolve()
      }
    })
  }
}

/** What a device says of itself; nothing counts as online. */
function isOffline(): boolean {
  const { navigator } = globalThis as { navigator?: { onLine?: boolean } }
  return navigator?.onLine === false
}
