/** What goes wrong between this package and a broker. */
import type { Problem } from './events.js'

/**
 * What went wrong:
 * `network` no connection, or it broke; `closed` the stream ended without `end`;
 * `silent` no byte came for 2.5 heartbeats, or no answer in time;
 * `http` a status other than 200; `not_a_stream` something else than a broker
 * answered; `unavailable` the broker could not begin the stream;
 * `token` the token provider failed; `configuration` an option is wrong.
 */
export type ErrorCode =
  | 'network'
  | 'closed'
  | 'silent'
  | 'http'
  | 'not_a_stream'
  | 'unavailable'
  | 'token'
  | 'configuration'

/** An error of a stream or of a request. */
export class RuncastError extends Error {
  override readonly name = 'RuncastError'
  readonly code: ErrorCode
  /** The HTTP status, if there was one. */
  readonly status: number | undefined
  /** The broker's own words, if it had some. */
  readonly problem: Problem | undefined

  constructor(
    code: ErrorCode,
    message: string,
    more: { status?: number | undefined; problem?: Problem | undefined; cause?: unknown } = {},
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause })
    this.code = code
    this.status = more.status
    this.problem = more.problem
  }

  /** Whether trying again later may help. */
  get retryable(): boolean {
    if (this.problem?.retryable !== undefined) return this.problem.retryable
    if (this.code === 'configuration') return false
    if (this.code !== 'http') return true
    const status = this.status ?? 0
    return status >= 500 || status === 408 || status === 425 || status === 429
  }
}

/** Returns the error that a response with another status than 2xx stands for. */
export async function responseError(response: Response): Promise<RuncastError> {
  let problem: Problem | undefined
  try {
    const body = (await response.json()) as Partial<Problem> | null
    if (typeof body?.type === 'string') problem = body as Problem
  } catch {
    // Not by a broker: a proxy's page, or nothing at all.
  }
  const said = problem?.detail ?? problem?.title ?? response.statusText
  const message = `the broker answered ${response.status}${said ? `: ${said}` : ''}`
  return new RuncastError('http', message, { status: response.status, problem })
}

/** Returns `error` as one of ours. */
export function asRuncastError(error: unknown): RuncastError {
  if (error instanceof RuncastError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new RuncastError('network', message, { cause: error })
}
