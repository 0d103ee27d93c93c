/** The routes beside the stream, typed: runs, one run, history, config, publish. */
import { Endpoint, type EndpointOptions } from './endpoint.js'
import type {
  Backend,
  BackendChoice,
  EventKind,
  GapEvent,
  LogLevel,
  RunEvent,
  RunEventData,
} from './events.js'
import { queryString, requestJson, runPath } from './request.js'

/** What `GET /api/v1/config` says. */
export interface BrokerConfig {
  version: string
  default_backend: Backend | 'auto'
  backends: Backend[]
  heartbeat_seconds: number
  /** How often to try again before giving up, by backend. */
  reconnect: Partial<Record<Backend, number>>
}

export const CONFIG_PATH = '/api/v1/config'

/** A run as a list shows it. */
export interface RunSummary {
  run_id: string
  backend: Backend | null
  status: string | null
  ended: boolean
  /** Streams open on this broker. */
  clients: number
  last_event_ts: string | null
  last_id: string | null
}

/** One page of runs; `next` is the `after` of the next one. */
export interface RunsPage {
  runs: RunSummary[]
  next: string | null
}

/** A run at length. */
export interface RunDetail extends RunSummary {
  first_id: string | null
  epoch: number | null
  /** Without the kinds that the token may not read. */
  events: Partial<Record<EventKind, number>> | null
  gaps: Omit<GapEvent, 'type'>[]
  /** Why nothing comes, in plain words; null if something does. */
  quiet_because: string | null
}

/** Why a run is as it is, on the broker that was asked. */
export interface RunExplanation {
  run_id: string
  /** What bare `/stream` would give now; null if it would be refused. */
  backend: Backend | null
  /** In sentences, what matters most first. */
  says: string[]
  /** What can be done; empty if nothing is wrong. */
  do: string[]
  quiet_because: string
}

/** One page of a run's durable events, oldest first. */
export interface HistoryPage<T = unknown> {
  /** Gaps stand among the events, where something is missing. */
  events: (RunEvent<T> | GapEvent)[]
  /** The `after` of the next page; null if nothing more is kept now. */
  next: string | null
  /** The `before` of the page before; null if nothing older is kept. */
  previous: string | null
  /** What is missing between the cursor and the page. */
  gap: GapEvent | null
}

export interface HistoryQuery {
  /** The oldest events after this id. */
  after?: string | undefined
  /** The newest events before this id. */
  before?: string | undefined
  /** 1–1000, default 100. */
  limit?: number | undefined
  kinds?: readonly EventKind[] | undefined
  sources?: readonly string[] | undefined
  logLevel?: LogLevel | undefined
  backend?: BackendChoice | undefined
}

/** An event to publish. */
export interface NewEvent {
  kind: EventKind
  /** Default `stdout`; a status has none. */
  source?: string | undefined
  data?: unknown
  data_base64?: string | undefined
}

export interface PublishOptions {
  /** A post that is sent again with the same key publishes nothing twice. */
  idempotencyKey?: string | undefined
  /** Begins the run anew, over or not. */
  restart?: boolean | undefined
  signal?: AbortSignal | undefined
}

/** What became of each event, in order. */
export interface Published {
  /** Null where refused, or not known. */
  ids: (string | null)[]
  errors: { index: number; type: string; detail: string }[]
}

/** A code that opens one stream of a run, once, as `?ticket=`. */
export interface Ticket {
  ticket: string
  /** How many seconds it is good for. */
  expires_in: number
}

export interface Health {
  status: 'ok' | 'degraded'
  version: string
  uptime_seconds: number
  draining: boolean
  dependencies: Record<
    string,
    {
      status: 'up' | 'down'
      since: string | null
      error: string | null
      latency_ms: number | null
      /** Of `kubectl` only: who asks the cluster. */
      engine?: 'command' | 'api'
    }
  >
}

interface CallOptions {
  signal?: AbortSignal | undefined
}

/** Calls a broker's routes. Every method throws a RuncastError if it fails. */
export class RuncastClient {
  readonly endpoint: Endpoint

  constructor(options: EndpointOptions | Endpoint = {}) {
    this.endpoint = options instanceof Endpoint ? options : new Endpoint(options)
  }

  /** What a frontend needs to know before it streams. */
  config(options: CallOptions = {}): Promise<BrokerConfig> {
    return this.#get(CONFIG_PATH, options)
  }

  /** How the broker and what it depends on are. */
  health(options: CallOptions = {}): Promise<Health> {
    return this.#get('/health', options)
  }

  /** One page of the runs this broker knows, by run id. */
  runs(query: CallOptions & { after?: string; limit?: number } = {}): Promise<RunsPage> {
    const { after, limit } = query
    return this.#get(`/api/v1/runs${queryString({ after, limit })}`, query)
  }

  /** One run; of a run never seen `status` is null. */
  run(runId: string, options: CallOptions = {}): Promise<RunDetail> {
    return this.#get(runPath(runId), options)
  }

  /** Why a run is as it is, in sentences; for people who ask. */
  explain(runId: string, options: CallOptions = {}): Promise<RunExplanation> {
    return this.#get(`${runPath(runId)}/explain`, options)
  }

  /** One page of a run's durable events, forwards or backwards. */
  async history<T = unknown>(
    runId: string,
    query: HistoryQuery & CallOptions = {},
  ): Promise<HistoryPage<T>> {
    const { after, before, limit, kinds, sources, logLevel, backend } = query
    const text = queryString({
      after,
      before,
      limit,
      kinds: kinds?.join(),
      sources: sources?.join(),
      log_level: logLevel,
      backend,
    })
    const page = await this.#get<WirePage<T>>(`${runPath(runId)}/events${text}`, query)
    return {
      ...page,
      events: page.events.map(readItem),
      gap: page.gap && { type: 'gap', ...page.gap },
    }
  }

  /** Publishes events durably, all in one post. */
  publish(
    runId: string,
    events: NewEvent | readonly NewEvent[],
    options: PublishOptions = {},
  ): Promise<Published> {
    const list: readonly NewEvent[] = Array.isArray(events) ? events : [events as NewEvent]
    const body = list.map((event) => JSON.stringify(event)).join('\n')
    return this.#post(runId, body, 'application/x-ndjson', {}, options)
  }

  /** Publishes each line of `text` as a string. */
  publishText(
    runId: string,
    text: string,
    options: PublishOptions & { kind?: EventKind; source?: string } = {},
  ): Promise<Published> {
    const { kind, source } = options
    return this.#post(runId, text, 'text/plain', { kind, source }, options)
  }

  /**
   * Asks for a ticket, for what can send no header: an `EventSource`, a link.
   * `AgentStream` sends the token itself and needs none.
   */
  ticket(runId: string, { signal }: CallOptions = {}): Promise<Ticket> {
    return requestJson(this.endpoint, '/api/v1/tickets', {
      method: 'POST',
      body: JSON.stringify({ run_id: runId }),
      headers: { 'Content-Type': 'application/json' },
      ...(signal && { signal }),
    })
  }

  #post(
    runId: string,
    body: string,
    contentType: string,
    query: Record<string, string | undefined>,
    options: PublishOptions,
  ): Promise<Published> {
    const restart = options.restart ? 'true' : undefined
    return requestJson(
      this.endpoint,
      `${runPath(runId)}/events${queryString({ ...query, restart })}`,
      {
        method: 'POST',
        body,
        headers: {
          'Content-Type': contentType,
          ...(options.idempotencyKey && { 'Idempotency-Key': options.idempotencyKey }),
        },
        ...(options.signal && { signal: options.signal }),
      },
    )
  }

  #get<T>(path: string, { signal }: CallOptions): Promise<T> {
    return requestJson(this.endpoint, path, signal && { signal })
  }
}

interface WireGap {
  event: 'gap'
  id: null
  data: Omit<GapEvent, 'type'>
}

interface WirePage<T> {
  events: ({ event: EventKind; id: string; data: RunEventData<T> } | WireGap)[]
  next: string | null
  previous: string | null
  gap: Omit<GapEvent, 'type'> | null
}

function readItem<T>(item: WirePage<T>['events'][number]): RunEvent<T> | GapEvent {
  if (item.event === 'gap') return { type: 'gap', ...item.data }
  return { type: item.event, id: item.id, ...item.data }
}
