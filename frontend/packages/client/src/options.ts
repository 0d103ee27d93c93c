/** Options of a stream, and what they come to. */
import type { BrokerConfig } from './api.js'
import type { EndpointOptions } from './endpoint.js'
import { backendVariable } from './env.js'
import { RuncastError } from './errors.js'
import type { Backend, BackendChoice, EventKind, LogLevel } from './events.js'
import type { Logger } from './log.js'
import { queryString, runPath } from './request.js'

/** What of a run is followed, and from where. */
export interface StreamQuery {
  /** Default: all kinds. */
  kinds?: readonly EventKind[] | undefined
  /** Default: all sources. */
  sources?: readonly string[] | undefined
  /** Least level of `log` events. Default: the broker's setting. */
  logLevel?: LogLevel | undefined
  /**
   * Where to begin: `start` (default) all that is kept, `now`, a negative number
   * for so many of the last events, or an id to go on after.
   */
  from?: 'start' | 'now' | number | (string & {}) | undefined
}

export interface AgentStreamOptions extends EndpointOptions, StreamQuery {
  /**
   * Where events come from. Default: `NEXT_PUBLIC_STREAMING_BACKEND`, else what
   * the broker's `/api/v1/config` names.
   */
  backend?: BackendChoice | undefined
  /**
   * Turns to the other backend once all attempts with this one failed. Its ids
   * are others, so that all it has is told after a `source` event.
   */
  fallback?: boolean | undefined
  /** Goes on after this event, as if it had been seen. */
  lastEventId?: string | null | undefined
  /**
   * How often to try again in a row, by backend. Default: what the broker says,
   * if it was asked, else 10 for redis and 3 for kubectl.
   */
  attempts?: Partial<Record<Backend, number>> | undefined
  /** How long an answer may take to begin. Default 30,000. */
  connectTimeoutMs?: number | undefined
  /** Closes the stream. */
  signal?: AbortSignal | undefined
  /**
   * Where the connection's life is told. Default: the console in browsers and
   * workers, under the prefix `[runcast]`; false is nowhere.
   */
  log?: boolean | Logger | undefined
  /** In place of `JSON.parse`, for numbers that JavaScript rounds. */
  parseJson?: ((text: string) => unknown) | undefined
}

const ATTEMPTS: Record<Backend, number> = { redis: 10, kubectl: 3, embedded: 10 }

/** Returns how many attempts in a row may fail. */
export function attemptsMax(
  backend: Backend,
  options: AgentStreamOptions,
  config: BrokerConfig | undefined,
): number {
  return options.attempts?.[backend] ?? config?.reconnect[backend] ?? ATTEMPTS[backend]
}

/** Returns the backend that options or environment ask for; undefined if none. */
export function configuredBackend(option: string | undefined): BackendChoice | undefined {
  const choice = option ?? backendVariable()?.toLowerCase()
  if (choice === undefined || choice === 'redis' || choice === 'kubectl' || choice === 'auto') {
    return choice
  }
  const where = option === undefined ? 'NEXT_PUBLIC_STREAMING_BACKEND' : 'the option `backend`'
  throw new RuncastError('configuration', `${where} is "${choice}"; it is redis, kubectl or auto`)
}

/** Returns path and query of the stream to ask for. */
export function streamPath(runId: string, backend: string, query: StreamQuery): string {
  // Bare `/stream` is what kubectl's was before there was another backend.
  const bare = backend === 'kubectl' || backend === 'auto'
  return (
    `${runPath(runId)}/stream${bare ? '' : '/redis'}` +
    queryString({
      backend: bare ? backend : undefined,
      kinds: query.kinds?.join(),
      sources: query.sources?.join(),
      log_level: query.logLevel,
      from: query.from,
    })
  )
}
