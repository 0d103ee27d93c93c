/** Where a stream's events and state go out: listeners and iterations. */
import { Emitter } from './emitter.js'
import type { ContentEvent, StreamEvent } from './events.js'
import { IterationQueue } from './queue.js'
import { IDLE, type StreamListeners, type StreamState } from './state.js'

export interface OutletOptions {
  /** An iteration has room again. */
  onRoom: () => void
  /** An iteration was left. */
  onReturn: () => void
}

/** Holds the state, the listeners, and what came together. */
export class Outlet {
  readonly #emitter = new Emitter<StreamListeners>()
  readonly #queues = new Set<IterationQueue<ContentEvent>>()
  readonly #options: OutletOptions
  #state: StreamState = IDLE
  #batch: StreamEvent[] = []

  constructor(options: OutletOptions) {
    this.#options = options
  }

  get state(): StreamState {
    return this.#state
  }

  /** Whether an iteration is so far behind that nothing more should come. */
  get full(): boolean {
    return [...this.#queues].some((queue) => queue.full)
  }

  on<Name extends keyof StreamListeners>(
    name: Name,
    listener: (value: StreamListeners[Name]) => void,
  ): () => void {
    return this.#emitter.on(name, listener)
  }

  /** Returns an iteration from here on; one over what is over has nothing. */
  iterate(): AsyncIterator<ContentEvent> {
    const queue = new IterationQueue<ContentEvent>(this.#options.onRoom, this.#options.onReturn)
    const { connection, error } = this.#state
    if (connection === 'closed' || connection === 'ended') queue.finish()
    else if (connection === 'failed') queue.finish(error ?? undefined)
    else this.#queues.add(queue)
    return queue
  }

  set(change: Partial<StreamState>): void {
    const now = this.#state
    const keys = Object.keys(change) as (keyof StreamState)[]
    if (keys.every((key) => now[key] === change[key])) return
    this.#state = { ...now, ...change }
    this.#emitter.emit('state', this.#state)
  }

  deliver(event: StreamEvent): void {
    this.#batch.push(event)
    this.#emitter.emit(event.type, event)
    this.#emitter.emit('event', event)
    if (event.type === 'hello' || event.type === 'heartbeat') return
    if (event.type === 'cursor' || event.type === 'goodbye') return
    for (const queue of this.#queues) queue.push(event)
  }

  /** Hands on what came together. */
  flush(): void {
    if (this.#batch.length === 0) return
    const batch = this.#batch
    this.#batch = []
    this.#emitter.emit('batch', batch)
  }

  /** Iterations come to their end, or throw `error`. */
  finish(error?: Error): void {
    for (const queue of this.#queues) queue.finish(error)
    this.#queues.clear()
  }
}
