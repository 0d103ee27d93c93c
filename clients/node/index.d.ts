/** Any JSON; an `undefined` member is left out, as `JSON.stringify` does. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json | undefined }

/** A client of yours: of `redis` (also a cluster) or of `ioredis`. */
export type RedisClient =
  | { fCall(name: string, options: { keys: string[]; arguments: (string | Buffer)[] }): Promise<unknown> }
  | { call(command: string, ...args: (string | Buffer | number)[]): Promise<unknown> }

export interface RunOptions {
  /** Redis; else RUNCAST__REDIS__URL, REDIS_URL or localhost. */
  url?: string
  /** A connected client of your own; it is not closed. */
  client?: RedisClient
  /** A name that outlives this process: a newer process under it fences this one off. */
  producer?: string
  /** Begin a run anew that is over. */
  restart?: boolean
  /** Milliseconds for which an event is tried while Redis is away; 30,000. */
  retryFor?: number
  /** The broker's `redis.channel_prefix`; `run:`. */
  prefix?: string
  /** Further words of the call: `['MAXLEN', 50000]`. */
  options?: (string | number)[]
  /** Print outputs and logs as they are published, a line each; else if RUNCAST_ECHO is 1. */
  echo?: boolean
  /** Of your span (W3C): brokers make the deliveries its children, if it is recorded. */
  traceparent?: string
}

/** `code` says what is wrong with an event that was not accepted. */
export class RuncastError extends Error {
  readonly code:
    | 'TOO_LARGE' | 'CLOSED' | 'FENCED' | 'FUNCTION_MISSING' | 'NOT_PUBLISHED' | 'BUSY' | 'REDIS' | (string & {})
}

/** A run, to publish to. Each call gives the event's id once Redis has it. */
export class Run {
  private constructor()
  /** `runId` without a value is the environment variable RUNCAST_RUN_ID. */
  static open(runId?: string, options?: RunOptions): Promise<Run>
  /** Runs `work`, then publishes `completed`, or `failed` with its error. */
  static with<T>(runId: string | undefined, options: RunOptions, work: (run: Run) => T | Promise<T>): Promise<T>
  readonly runId: string
  /** What the deliveries of the next events belong to. */
  traceparent: string | undefined
  /** What the agent produced: text, JSON or bytes. */
  output(data: Json | Uint8Array, source?: string): Promise<string>
  /** The run's state changed; a terminal status ends it. */
  status(status: string, fields?: { [key: string]: Json }): Promise<string>
  /** A log line: trace, debug, info, warn, error or fatal. */
  log(level: string, msg: string, fields?: { [key: string]: Json }, source?: string): Promise<string>
  /** An event of any kind. */
  publish(kind: 'output' | 'status' | 'log', data: Json | Uint8Array, source?: string): Promise<string>
  /** Waits for the calls made before and closes the connection. */
  close(): Promise<void>
}
