/** What every stream does alike, over whichever connection. */
import type { ContentEvent } from './events.js'
import { LOG_PREFIX, loggerFor, type Logger } from './log.js'
import type { AgentStreamOptions } from './options.js'
import { Outlet } from './outlet.js'
import type { RunStream, StreamListeners, StreamState } from './state.js'

/** Holds the listeners, and knows when a stream begins and is over. */
export abstract class BaseStream implements RunStream {
  readonly runId: string
  protected readonly out: Outlet
  readonly #log: Logger
  readonly #signal: AbortSignal | undefined

  constructor(runId: string, { log, signal }: AgentStreamOptions) {
    this.runId = runId
    this.out = new Outlet({ onRoom: () => this.onRoom(), onReturn: () => this.close() })
    this.#log = loggerFor(log)
    this.#signal = signal
  }

  abstract get lastEventId(): string | null
  abstract pause(): void
  abstract reconnect(): void
  /** Begins to follow, or goes on. */
  protected abstract begin(): void
  /** Lets go of everything; the place in the run is kept. */
  protected abstract stop(): void
  /** An iteration that was behind has room again. */
  protected abstract onRoom(): void

  get state(): StreamState {
    return this.out.state
  }

  on<Name extends keyof StreamListeners>(
    name: Name,
    listener: (value: StreamListeners[Name]) => void,
  ): () => void {
    return this.out.on(name, listener)
  }

  start(): void {
    const { connection } = this.state
    if (connection === 'idle' || connection === 'paused') this.begin()
  }

  resume(): void {
    this.start()
  }

  close(): void {
    if (this.isClosed) return
    this.stop()
    this.#signal?.removeEventListener('abort', this.#onAbort)
    this.out.set({ connection: 'closed', retryAt: null })
    this.out.finish()
  }

  /**
   * Starts the stream and gives what it tells. Ends with the run, or when the
   * stream is closed; throws when it is given up. Leaving the loop closes the
   * stream. While the loop is busy, the stream waits.
   */
  [Symbol.asyncIterator](): AsyncIterator<ContentEvent> {
    const iteration = this.out.iterate()
    this.start()
    return iteration
  }

  protected get isClosed(): boolean {
    return this.state.connection === 'closed'
  }

  /** Closes with the AbortSignal; called once the stream is whole. */
  protected obeySignal(): void {
    if (this.#signal?.aborted) this.close()
    else this.#signal?.addEventListener('abort', this.#onAbort)
  }

  protected tell(message: string, level: 'info' | 'warn' = 'info'): void {
    this.#log[level](`${LOG_PREFIX} ${this.runId}: ${message}`)
  }

  readonly #onAbort = (): void => this.close()
}
