/** What is known of a stream, and what it can be told to do. */
import type { RuncastError } from './errors.js'
import type { Backend, ContentEvent, EndEvent, StreamEvent } from './events.js'

/**
 * How the connection is:
 * `idle` not started; `connecting` for the first time; `open` live;
 * `reconnecting` lost, or waiting to try again; `paused` by `pause()`;
 * `offline` the device has no network; `ended` the run is over;
 * `failed` given up; `closed` by `close()` or its AbortSignal.
 */
export type Connection =
  | 'idle'
  | 'connecting'
  | 'open'
  | 'reconnecting'
  | 'paused'
  | 'offline'
  | 'ended'
  | 'failed'
  | 'closed'

/** A stream's state; a new object whenever something in it changes. */
export interface StreamState {
  readonly connection: Connection
  /** The backend in use, or to be tried next; null until that is known. */
  readonly backend: Backend | null
  /** Attempts in a row that failed; 0 after a healthy minute. */
  readonly attempt: number
  /** How many may fail before the stream gives this backend up. */
  readonly attemptsMax: number
  /** When the next attempt begins (milliseconds since 1970); null if none waits. */
  readonly retryAt: number | null
  /** The run's last status. */
  readonly status: string | null
  /** How the run ended; null while it goes on, or if that is not known. */
  readonly end: EndEvent | null
  /** Why the connection was last lost, or given up; null once it is open. */
  readonly error: RuncastError | null
}

export const IDLE: StreamState = {
  connection: 'idle',
  backend: null,
  attempt: 0,
  attemptsMax: 10,
  retryAt: null,
  status: null,
  end: null,
  error: null,
}

/** Events of a stream object by name, and what their listeners are given. */
export type StreamListeners = {
  [E in StreamEvent as E['type']]: E
} & {
  /** Every event, in order. */
  event: StreamEvent
  /** The same, those together that came together. */
  batch: readonly StreamEvent[]
  /** The state has changed. */
  state: StreamState
}

/** A stream of a run, over a connection of its own or one shared between tabs. */
export interface RunStream extends AsyncIterable<ContentEvent> {
  readonly runId: string
  readonly state: StreamState
  /** The id of the last event seen; null before any. */
  readonly lastEventId: string | null
  /** Adds a listener, and returns what removes it. */
  on<Name extends keyof StreamListeners>(
    name: Name,
    listener: (value: StreamListeners[Name]) => void,
  ): () => void
  /** Begins to follow. Does nothing if it follows already. */
  start(): void
  /** Lets go of the connection; the place in the run is kept. */
  pause(): void
  /** Goes on where `pause()` left off. */
  resume(): void
  /** Connects anew at once, with all attempts to spend again. */
  reconnect(): void
  /** Ends it for good. */
  close(): void
}
