/**
 * What a stream tells, as types: one interface for each event of the protocol
 * (docs/protocol.md), told apart by `type`. Fields keep their names on the wire.
 */

/** What sort of thing happened in a run. */
export type EventKind = 'output' | 'status' | 'log'

/** Where a run's events come from. */
export type Backend = 'redis' | 'kubectl' | 'embedded'

/** Which backend to ask for; `auto` lets the broker choose at each connect. */
export type BackendChoice = 'redis' | 'kubectl' | 'auto'

/** Least level of `log` events. */
export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal'

/** What is said of an event of a run, on a stream and in its history. */
export interface RunEventData<T = unknown> {
  run_id: string
  kind: EventKind
  /** Who said it (`stdout`, `agent`, `pod-1/main`); empty for a status. */
  source: string
  /** When, in RFC 3339. */
  ts: string
  backend: Backend
  /** What was published. Undefined if it was no UTF-8: see `data_base64`. */
  data: T
  /** What was published, if it was no UTF-8. */
  data_base64?: string
}

/** An event of the run. */
export interface RunEvent<T = unknown> extends RunEventData<T> {
  type: EventKind
  /** Its id, opaque: where a stream can go on, and good for a permalink. */
  id: string
}

/** The stream begins. */
export interface HelloEvent {
  type: 'hello'
  v: number
  run_id: string
  backend: Backend
  resume: 'live' | 'replay' | 'gap'
  cursor: string | null
  heartbeat_seconds: number
}

/** The stream lives; `last_event_ms` is the time since the run's last event. */
export interface HeartbeatEvent {
  type: 'heartbeat'
  ts: string
  last_event_ms: number | null
}

/** Where the stream is, past events that a filter hid. */
export interface CursorEvent {
  type: 'cursor'
  id: string
}

/** Why events are missing. */
export type GapReason =
  | 'trimmed'
  | 'expired'
  | 'disconnected'
  | 'restarted'
  | 'slow_client'
  | 'too_large'
  | 'rewound'
  | 'producer'
  | 'bad_cursor'
  | 'overflow'
  // A broker may be newer than this package.
  | (string & {})

/** Events are missing here: between two ids, exclusive, as far as known. */
export interface GapEvent {
  type: 'gap'
  after: string | null
  before: string | null
  /** How many, null if that cannot be known. */
  missed: number | null
  reason: GapReason
}

/** From here on events come from another backend, whose ids are its own. */
export interface SourceEvent {
  type: 'source'
  from: Backend
  to: Backend
  reason: string
}

/** An error as the broker describes it (RFC 9457). */
export interface Problem {
  type: string
  title: string
  status: number
  detail: string
  retryable?: boolean
}

/** Something is wrong with the stream, or with what it reads. */
export interface ProblemEvent {
  type: 'problem'
  problem: Problem
}

/** The broker closes; the client comes back by itself. */
export interface GoodbyeEvent {
  type: 'goodbye'
  reason:
    | 'drain'
    | 'max_age'
    | 'overload'
    | 'unavailable'
    | 'internal'
    | 'token_expired'
    | 'slow_client'
    | (string & {})
}

/** The run is over and all of it was told. */
export interface EndEvent {
  type: 'end'
  id: string
  /** How it ended, in lower case: `completed`, `failed`, … */
  status: string
  /** How many events of all kinds it had, if that is known. */
  events: number | null
}

/** Everything a stream may tell. */
export type StreamEvent =
  | RunEvent
  | HelloEvent
  | HeartbeatEvent
  | CursorEvent
  | GapEvent
  | SourceEvent
  | ProblemEvent
  | GoodbyeEvent
  | EndEvent

/** What an iteration over a stream gives: all but its housekeeping. */
export type ContentEvent = RunEvent | GapEvent | SourceEvent | ProblemEvent | EndEvent

/** Returns whether `event` is one of the run's own. */
export function isRunEvent(event: StreamEvent): event is RunEvent {
  return event.type === 'output' || event.type === 'status' || event.type === 'log'
}

/**
 * Returns what a status says: a string itself, or field `status` of an object;
 * null for any other.
 */
export function statusText(data: unknown): string | null {
  if (typeof data === 'string') return data
  if (typeof data === 'object' && data !== null && 'status' in data) {
    return typeof data.status === 'string' ? data.status : null
  }
  return null
}
