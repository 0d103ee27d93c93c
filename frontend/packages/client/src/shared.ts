/**
 * One connection for all tabs of an origin that follow the same run.
 *
 * Every tab begins with a connection of its own. The one that gets the Web Lock
 * tells what it receives on a BroadcastChannel; the others listen, and close
 * their own connection as soon as it has come to an event that the leader has,
 * too. Where a tab misses something, or hears nothing for too long, it connects
 * for itself again, from the last event it has. So nothing depends on another
 * tab's memory or health: at worst each has its own connection.
 */
import { BaseStream } from './base-stream.js'
import { Endpoint } from './endpoint.js'
import { inBrowser } from './log.js'
import { configuredBackend, streamPath, type AgentStreamOptions } from './options.js'
import { isRunEvent, type StreamEvent } from './events.js'
import { RecentIds } from './recent-ids.js'
import type { RunStream, StreamState } from './state.js'
import { AgentStream } from './stream.js'
import {
  eventsAfter,
  groupName,
  plainState,
  stateOf,
  type TabMessage,
  type TabNews,
} from './tab-messages.js'

export interface OpenStreamOptions extends AgentStreamOptions {
  /** Shares one connection with other tabs of this origin, if the browser can. */
  shared?: boolean | undefined
  /**
   * Whose stream it is, where different people may be logged in in different
   * tabs: only tabs that say the same share.
   */
  identity?: string | undefined
}

/** Returns a stream of a run: shared between tabs if asked for and possible. */
export function openStream(runId: string, options: OpenStreamOptions = {}): RunStream {
  const { shared, ...own } = options
  return shared && canShare() ? new SharedStream(runId, own) : new AgentStream(runId, own)
}

function canShare(): boolean {
  return inBrowser() && 'BroadcastChannel' in globalThis && !!globalThis.navigator.locks
}

/** Most events heard of the leader that are held until our own connection is there. */
const HEARD_MAX = 4_096
/** The leader beats as its broker does; a third beat missed, it is not heard. */
const HEARTBEATS_MISSED = 3
const HEARTBEAT_MS = 30_000
/** How much later than announced the leader may connect anew. */
const RETRY_LATE_MS = 3_000

class SharedStream extends BaseStream {
  readonly #options: Omit<OpenStreamOptions, 'shared'>
  readonly #name: string
  readonly #recent = new RecentIds()
  #last: string | null
  #own: AgentStream | undefined
  #letGo: (() => void) | undefined
  #channel: BroadcastChannel | undefined
  /** Aborted, this tab is no member of the group any more. */
  #member: AbortController | undefined
  #leads = false
  #told: string | null = null
  /** What the leader told while our own connection catches up. */
  #heard: TabNews[] = []
  #heardEvents = 0
  #heartbeatMs = HEARTBEAT_MS
  #silence: ReturnType<typeof setTimeout> | undefined
  #parked = false
  #wasOpen = false

  constructor(runId: string, options: Omit<OpenStreamOptions, 'shared'>) {
    super(runId, options)
    this.#options = options
    this.#last = options.lastEventId ?? null
    this.#name = groupName(membership(runId, options))
    this.obeySignal()
  }

  get lastEventId(): string | null {
    return this.#last
  }

  pause(): void {
    if (!this.#member && !this.#parked) return
    this.stop()
    this.out.set({ connection: 'paused', retryAt: null })
  }

  reconnect(): void {
    if (this.isClosed) return
    if (this.#own && this.#member) this.#own.reconnect()
    else if (this.#member) this.#post({ type: 'reconnect' })
    else {
      this.out.set({ error: null, attempt: 0 })
      this.begin()
    }
  }

  // ---- membership -----------------------------------------------------------

  protected begin(): void {
    const member = (this.#member = new AbortController())
    this.#parked = false
    this.#channel?.close()
    try {
      this.#channel = new BroadcastChannel(this.#name)
      this.#channel.onmessage = ({ data }: MessageEvent<TabMessage>) => this.#onMessage(data)
      void this.#waitToLead(member.signal)
    } catch {
      // A document without an origin, say: then it is alone.
    }
    this.#connect()
    this.#post({ type: 'ask' })
  }

  protected stop(): void {
    this.#member?.abort()
    this.#member = undefined
    this.#leads = this.#parked = false
    this.#disconnect()
    this.#channel?.close()
    this.#channel = undefined
    clearTimeout(this.#silence)
  }

  /** Holds the lock from when it is ours until this tab leaves. */
  async #waitToLead(signal: AbortSignal): Promise<void> {
    const held = new Promise<void>((resolve) => {
      signal.addEventListener('abort', () => resolve())
    })
    try {
      await navigator.locks.request(this.#name, { signal }, () => {
        if (signal.aborted) return undefined
        this.#leads = true
        this.#told = this.#last
        clearTimeout(this.#silence)
        if (!this.#own) this.#connect()
        this.#tellNews([])
        return held
      })
    } catch {
      // Left before it led, or locks are not allowed here.
    }
  }

  // ---- a connection of our own ----------------------------------------------

  #newStream(): AgentStream {
    const { backend } = this.out.state
    const options = { ...this.#options, signal: undefined, lastEventId: this.#last }
    // The last event is one of this backend's.
    if (options.fallback && this.#last !== null && (backend === 'redis' || backend === 'kubectl')) {
      options.backend = backend
    }
    return new AgentStream(this.runId, options)
  }

  #connect(): void {
    this.#disconnect()
    const own = (this.#own = this.#newStream())
    const off = [
      own.on('event', (event) => {
        this.#take(event)
        this.#last = own.lastEventId
      }),
      own.on('batch', (batch) => {
        this.#flush()
        if (this.#leads) this.#tellNews(batch)
        else this.#handOver()
      }),
      own.on('state', (state) => {
        this.#setState(state)
        if (this.#leads) this.#tellNews([])
        if (isOver(state)) this.#over(state)
      }),
    ]
    this.#letGo = () => {
      for (const each of off) each()
      own.close()
    }
    own.start()
  }

  #disconnect(): void {
    this.#letGo?.()
    this.#letGo = this.#own = undefined
    this.#heard = []
    this.#heardEvents = 0
  }

  /** Takes an event, once. */
  #take(event: StreamEvent): void {
    if (event.type === 'hello') this.#heartbeatMs = event.heartbeat_seconds * 1000
    if (isRunEvent(event) && event.id !== '' && !this.#recent.add(event.id)) return
    this.out.deliver(event)
  }

  #flush(): void {
    this.out.flush()
    if (!this.out.full || this.#parked) return
    // Whoever iterates is behind: others are not to wait for that.
    this.stop()
    this.#parked = true
  }

  protected onRoom(): void {
    if (this.#parked && !this.out.full) this.begin()
  }

  #setState(state: StreamState): void {
    const { backend, status } = this.out.state
    if (state.connection === 'open') this.#wasOpen = true
    // A new connection of ours is no new one to whoever watches.
    const again = state.connection === 'connecting' && this.#wasOpen
    this.out.set({
      ...state,
      connection: again ? 'reconnecting' : state.connection,
      backend: state.backend ?? backend,
      status: state.status ?? status,
    })
  }

  #over(state: StreamState): void {
    const { connection, error } = state
    if (connection === 'closed') return
    this.stop()
    this.out.finish(connection === 'failed' ? (error ?? undefined) : undefined)
    // Somebody else may make it work again: then we are there.
    if (connection === 'failed') this.#listen()
  }

  #listen(): void {
    try {
      this.#channel = new BroadcastChannel(this.#name)
    } catch {
      return
    }
    this.#channel.onmessage = ({ data }: MessageEvent<TabMessage>) => {
      if (data.type === 'news' && data.news.state.connection === 'open') this.begin()
    }
  }

  // ---- the others -----------------------------------------------------------

  #post(message: TabMessage): void {
    this.#channel?.postMessage(message)
  }

  #tellNews(events: readonly StreamEvent[]): void {
    const own = this.#own
    if (!own) return
    const news = { after: this.#told, last: this.#last, events, state: plainState(own.state) }
    this.#told = this.#last
    this.#post({ type: 'news', news })
  }

  #onMessage(message: TabMessage): void {
    if (message.type === 'ask') {
      if (this.#leads) this.#tellNews([])
    } else if (message.type === 'reconnect') {
      if (this.#leads) this.#own?.reconnect()
    } else if (!this.#leads) this.#hear(message.news)
  }

  #hear(news: TabNews): void {
    if (this.#own) {
      if (this.#heard.at(-1)?.last !== news.after) this.#forget()
      this.#heard.push(news)
      this.#heardEvents += news.events.length
      while (this.#heardEvents > HEARD_MAX && this.#heard.length > 1) {
        this.#heardEvents -= this.#heard.shift()?.events.length ?? 0
      }
      this.#handOver()
      return
    }
    const events = eventsAfter(news, this.#last) ?? this.#unlessMissed(news)
    if (events) this.#follow(events, news)
    else this.#connect()
  }

  #forget(): void {
    this.#heard = []
    this.#heardEvents = 0
  }

  /** Returns nothing to do for news that are old; undefined if some are missing. */
  #unlessMissed(news: TabNews): StreamEvent[] | undefined {
    const known = news.events.every((event) => !('id' in event) || this.#recent.has(event.id))
    return known && news.last !== null && this.#recent.has(news.last) ? [] : undefined
  }

  /** Gives our own connection up as soon as the leader's has all it has. */
  #handOver(): void {
    const news = this.#heard.at(-1)
    if (news?.state.connection !== 'open' || this.#own?.state.connection !== 'open') return
    const at = this.#heard.findLastIndex((each) => eventsAfter(each, this.#last) !== undefined)
    if (at < 0) return
    const [meeting, ...later] = this.#heard.slice(at)
    const events = meeting ? (eventsAfter(meeting, this.#last) ?? []) : []
    this.#disconnect()
    this.tell('following the connection of another tab')
    this.#follow([...events, ...later.flatMap((each) => each.events)], news)
  }

  #follow(events: readonly StreamEvent[], news: TabNews): void {
    const state = stateOf(news.state)
    for (const event of events) this.#take(event)
    this.#last = news.last
    this.#setState(state)
    this.#flush()
    if (isOver(state)) this.#over(state)
    else if (this.#member) this.#expectNews(state)
  }

  /** Connects for itself if the leader is not heard in time. */
  #expectNews({ retryAt }: StreamState): void {
    clearTimeout(this.#silence)
    const late = retryAt === null ? HEARTBEATS_MISSED * this.#heartbeatMs : RETRY_LATE_MS
    const wait = (retryAt === null ? 0 : Math.max(0, retryAt - Date.now())) + late
    this.#silence = setTimeout(() => {
      if (!this.#own) this.#connect()
    }, wait)
  }
}

function isOver({ connection }: StreamState): boolean {
  return connection === 'ended' || connection === 'failed' || connection === 'closed'
}

/**
 * Returns what tabs must have in common to share a connection. What is left out
 * counts as what it means.
 */
function membership(runId: string, options: OpenStreamOptions): unknown[] {
  const { token, headers, identity, credentials } = options
  const { baseUrl } = new Endpoint(options)
  const backend = configuredBackend(options.backend)
  return [
    [baseUrl, streamPath(runId, backend ?? 'auto', options), backend, options.fallback ?? false],
    [identity, credentials],
    typeof token === 'function' ? 'provider' : token,
    typeof headers === 'function' ? 'provider' : headers,
  ]
}
