/** What a page shows of a run: its last events, gaps and state, bounded. */
import type { GapEvent, RunEvent, SourceEvent, StreamEvent } from './events.js'
import { FrameScheduler } from './frames.js'
import { IDLE, type RunStream, type StreamState } from './state.js'

/** Something that stands between two events. */
export type Placed<T> = T & {
  /** How many events of the run came before it, those dropped included. */
  position: number
}

/** A run as a page shows it; a new object whenever something changed. */
export interface RunView<T = unknown> extends StreamState {
  /** The last events, oldest first; at most `maxEvents`. */
  events: readonly RunEvent<T>[]
  /** How many events came in all, and how many of the oldest were let go. */
  total: number
  dropped: number
  /** Where events are missing: before `events[gap.position - dropped]`. */
  gaps: readonly Placed<GapEvent>[]
  /** Where the backend changed. */
  sources: readonly Placed<SourceEvent>[]
}

export const EMPTY_VIEW: RunView = {
  ...IDLE,
  events: [],
  total: 0,
  dropped: 0,
  gaps: [],
  sources: [],
}

/** Most gaps and changes of source that are kept. */
const MARKS_MAX = 1_000

/**
 * Gathers a stream's events, and tells its listeners once per frame. Holds at
 * most twice `maxEvents`, the oldest go.
 */
export class ViewBuffer {
  readonly #maxEvents: number
  readonly #listeners = new Set<() => void>()
  readonly #frames = new FrameScheduler(() => this.#publish())
  #events: RunEvent[] = []
  #total = 0
  #gaps: Placed<GapEvent>[] = []
  #sources: Placed<SourceEvent>[] = []
  #state: StreamState = IDLE
  #view: RunView = EMPTY_VIEW

  constructor(maxEvents: number) {
    this.#maxEvents = maxEvents
  }

  /** Listens to `stream`; returns what lets go of it. */
  attach(stream: RunStream): () => void {
    this.setState(stream.state)
    const off = [
      stream.on('batch', (batch) => this.add(batch)),
      stream.on('state', (state) => this.setState(state)),
    ]
    return () => {
      for (const each of off) each()
      this.detach()
    }
  }

  /** Tells nobody any more. */
  detach(): void {
    this.#frames.cancel()
  }

  /** The same object until something changes. */
  get view(): RunView {
    return this.#view
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Takes what came, in order. */
  add(batch: readonly StreamEvent[]): void {
    let changed = false
    for (const event of batch) {
      if (event.type === 'output' || event.type === 'status' || event.type === 'log') {
        this.#events.push(event)
        this.#total += 1
      } else if (event.type === 'gap') {
        this.#gaps = bounded(this.#gaps, { ...event, position: this.#total })
      } else if (event.type === 'source') {
        this.#sources = bounded(this.#sources, { ...event, position: this.#total })
      } else continue
      changed = true
    }
    if (this.#events.length > 2 * this.#maxEvents) {
      this.#events = this.#events.slice(-this.#maxEvents)
    }
    if (changed) this.#frames.schedule()
  }

  /** Takes note of the stream's state. */
  setState(state: StreamState): void {
    if (state === this.#state) return
    this.#state = state
    this.#frames.schedule()
  }

  #publish(): void {
    const events = this.#events.slice(-this.#maxEvents)
    // What did not change keeps its identity, so that who shows only that need
    // not look again.
    const same = this.#total === this.#view.total
    this.#view = {
      ...this.#state,
      events: same ? this.#view.events : events,
      total: this.#total,
      dropped: this.#total - events.length,
      gaps: this.#gaps,
      sources: this.#sources,
    }
    for (const listener of [...this.#listeners]) listener()
  }
}

function bounded<T>(list: readonly T[], item: T): T[] {
  return [...list.slice(-(MARKS_MAX - 1)), item]
}
