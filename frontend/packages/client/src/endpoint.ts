/**
 * One broker as every call of this package sees it: one base URL, one token,
 * one set of headers.
 */
import { baseUrlVariable } from './env.js'
import { RuncastError } from './errors.js'

/** A token, and if known when it ends (milliseconds since 1970, or a Date). */
export interface Token {
  token: string
  expiresAt?: number | Date | undefined
}

/**
 * Returns the token to use, or nothing for none. Asked before the first
 * request, again before the token ends (`expiresAt`, or the `exp` of a JWT),
 * and after a 401.
 */
export type TokenProvider = (request: {
  reason: 'first' | 'expiring' | 'unauthorized'
}) => MaybePromise<string | Token | null | undefined>

type MaybePromise<T> = T | Promise<T>

export interface EndpointOptions {
  /**
   * Where the broker is: `https://runcast.example`, with a path if it is behind
   * one. Default: `NEXT_PUBLIC_API_BASE_URL`, else the page's own origin.
   */
  baseUrl?: string | undefined
  /** Sent as `Authorization: Bearer …`: a token, or where to get one. */
  token?: string | TokenProvider | undefined
  /** Further headers of every request. */
  headers?: Record<string, string> | (() => MaybePromise<Record<string, string>>) | undefined
  /** `include` sends cookies to another origin. Default as of `fetch`. */
  credentials?: RequestCredentials | undefined
  /** In place of the global `fetch`. */
  fetch?: typeof fetch | undefined
}

/** A token is asked for anew so long before it ends, or at half of its life. */
const TOKEN_MARGIN_MS = 30_000
/** A provider that gives old tokens, or fails, is not asked more often. */
const TOKEN_PAUSE_MS = 5_000
/** What a timer can wait at most. */
const TIMER_MAX_MS = 2 ** 31 - 1

/** A request, its headers as a plain object. */
export type EndpointRequest = Omit<RequestInit, 'headers'> & { headers?: Record<string, string> }

/** Sends requests to one broker. */
export class Endpoint {
  /** Without a slash at its end; empty for the page's own origin. */
  readonly baseUrl: string
  readonly #options: EndpointOptions
  #token: string | undefined
  #tokenDue = Infinity
  #asked = false

  constructor(options: EndpointOptions = {}) {
    this.#options = options
    this.baseUrl = (options.baseUrl ?? baseUrlVariable() ?? '').replace(/\/+$/, '')
    if (this.baseUrl === '' && !('location' in globalThis)) {
      throw new RuncastError(
        'configuration',
        'there is no page to take the origin from: give `baseUrl`, or set NEXT_PUBLIC_API_BASE_URL',
      )
    }
  }

  /**
   * Sends a request and returns the response, whatever its status. After a 401
   * the token provider is asked again, once.
   */
  async request(path: string, init: EndpointRequest = {}) {
    const stale = this.#asked && Date.now() >= this.#tokenDue
    if (!this.#asked || stale) await this.#renewToken(stale ? 'expiring' : 'first')
    const response = await this.#send(path, init)
    if (response.status !== 401 || typeof this.#options.token !== 'function') return response
    const before = this.#token
    await this.#renewToken('unauthorized')
    if (this.#token === before) return response
    await response.body?.cancel()
    return this.#send(path, init)
  }

  /**
   * Asks for the next token before the present one ends, until `signal`: who
   * holds a stream open has it at hand when the broker ends the stream.
   */
  keepFresh(signal: AbortSignal): void {
    const wait = Math.max(this.#tokenDue - Date.now(), TOKEN_PAUSE_MS)
    if (wait > TIMER_MAX_MS || signal.aborted) return
    const stop = () => clearTimeout(timer)
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', stop)
      const renewed = this.#renewToken('expiring')
      // What failed is said when the token is needed.
      void renewed.catch(() => undefined).then(() => this.keepFresh(signal))
    }, wait)
    signal.addEventListener('abort', stop, { once: true })
  }

  async #renewToken(reason: Parameters<TokenProvider>[0]['reason']): Promise<void> {
    const { token } = this.#options
    let got
    try {
      got = typeof token === 'function' ? await token({ reason }) : token
    } catch (cause) {
      throw new RuncastError('token', `the token provider failed: ${String(cause)}`, { cause })
    }
    const text = typeof got === 'object' ? got?.token : got
    const given = typeof got === 'object' ? got?.expiresAt : undefined
    this.#token = text
    const now = Date.now()
    // What was given once for ever cannot be asked for again.
    const ends = typeof token === 'function' ? Number(given ?? jwtEnd(text)) : Infinity
    this.#tokenDue = ends - Math.min(TOKEN_MARGIN_MS, Math.max(0, (ends - now) / 2))
    this.#asked = true
  }

  async #send(path: string, init: EndpointRequest) {
    const { headers, credentials } = this.#options
    const ours: Record<string, string> = {
      ...(await given(headers)),
      ...init.headers,
    }
    if (this.#token) ours.Authorization = `Bearer ${this.#token}`
    const send = this.#options.fetch ?? fetch
    const all: RequestInit = { ...init, headers: ours }
    if (credentials) all.credentials = credentials
    return send(this.baseUrl + path, all)
  }
}

async function given(
  headers: EndpointOptions['headers'],
): Promise<Record<string, string> | undefined> {
  return typeof headers === 'function' ? headers() : headers
}

/** Returns when a JWT ends; Infinity for any other token. */
function jwtEnd(token: string | undefined): number {
  try {
    const claims = (token ?? '').split('.')[1] ?? ''
    const { exp } = JSON.parse(atob(claims.replace(/-/g, '+').replace(/_/g, '/'))) as {
      exp?: unknown
    }
    return typeof exp === 'number' ? exp * 1000 : Infinity
  } catch {
    return Infinity
  }
}
