/** What tabs say to each other about one run. */
import { RuncastError, type ErrorCode } from './errors.js'
import type { Problem, StreamEvent } from './events.js'
import type { StreamState } from './state.js'

/** An error as it passes between tabs, which keeps no class. */
interface PlainError {
  code: ErrorCode
  message: string
  status: number | undefined
  problem: Problem | undefined
}

/** What the leading tab tells of its stream. */
export interface TabNews {
  /** The id of the last event before `events`, and after them. */
  after: string | null
  last: string | null
  events: readonly StreamEvent[]
  state: Omit<StreamState, 'error'> & { error: PlainError | null }
}

export type TabMessage =
  | { type: 'news'; news: TabNews }
  /** Somebody came: what is the state of things? */
  | { type: 'ask' }
  /** Somebody wants the connection made anew. */
  | { type: 'reconnect' }

export function plainState(state: StreamState): TabNews['state'] {
  const { error } = state
  if (!error) return { ...state, error: null }
  const { code, message, status, problem } = error
  return { ...state, error: { code, message, status, problem } }
}

export function stateOf(plain: TabNews['state']): StreamState {
  const { error } = plain
  return { ...plain, error: error && new RuncastError(error.code, error.message, error) }
}

/** Returns what `news` has after the event `last`; undefined if that is not in it. */
export function eventsAfter(news: TabNews, last: string | null): StreamEvent[] | undefined {
  if (news.after === last) return [...news.events]
  if (last === null) return undefined
  const at = news.events.findLastIndex((event) => 'id' in event && event.id === last)
  return at < 0 ? undefined : news.events.slice(at + 1)
}

/**
 * Returns a name for what is followed, the same in every tab that follows the
 * same. Not a secret, and holds none.
 */
export function groupName(parts: readonly unknown[]): string {
  const text = JSON.stringify(parts)
  // FNV-1a, twice with different beginnings: 64 bits.
  const hashes = [0x811c9dc5, 0x01000193].map((hash) => {
    for (let i = 0; i < text.length; i += 1) {
      hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
    }
    return (hash >>> 0).toString(36)
  })
  return `runcast:${hashes.join('')}`
}
