// Publishes what an agent does durably to Runcast, through Redis.
import { setTimeout as sleep } from 'node:timers/promises'

import { Publisher, RuncastError, encode, isTerminal } from './publisher.js'

export { RuncastError }

// One command may wait as long for its answer; then it is sent again.
const ANSWER_MS = 5000
const PENDING_MAX = 10_000

/** A run, to publish to. See README.md and index.d.ts. */
export class Run {
  #client
  #owned
  #publisher
  #last = Promise.resolve()
  #pending = 0
  #ended = false
  #echo

  /** Connects to Redis, unless a client is given, and returns the run. */
  static async open(runId = process.env.RUNCAST_RUN_ID, options = {}) {
    // Before anything is connected: a bad name throws.
    const publisher = new Publisher(runId, options)
    const client = options.client ?? (await connect(options.url))
    return new Run(publisher, client, !options.client, options.echo)
  }

  /** Runs `work` with a run and publishes how it ended. */
  static async with(runId, options, work) {
    const run = await Run.open(runId, options)
    try {
      const result = await work(run)
      if (!run.#ended) await run.status('completed')
      return result
    } catch (error) {
      // The error of the work matters more than one of telling it.
      if (!run.#ended) await run.status('failed', { error: String(error).slice(0, 4096) }).catch(() => {})
      throw error
    } finally {
      await run.close()
    }
  }

  /** Made by `Run.open`. */
  constructor(publisher, client, owned, echo) {
    this.#publisher = publisher
    this.#client = client
    this.#owned = owned
    this.#echo = echo ?? process.env.RUNCAST_ECHO === '1'
  }

  get runId() {
    return this.#publisher.runId
  }

  get traceparent() {
    return this.#publisher.traceparent
  }

  set traceparent(traceparent) {
    this.#publisher.traceparent = traceparent
  }

  output(data, source = 'stdout') {
    return this.publish('output', data, source)
  }

  async status(status, fields) {
    const id = await this.publish('status', fields ? { status, ...fields } : status)
    if (isTerminal(status)) this.#ended = true
    return id
  }

  log(level, msg, fields, source = 'agent') {
    return this.publish('log', { level, msg, ...fields }, source)
  }

  async publish(kind, data, source = '') {
    const payload = encode(data)
    if (this.#pending >= PENDING_MAX) {
      throw new RuncastError('BUSY', `${PENDING_MAX} events wait for Redis: await the calls`)
    }
    this.#pending += 1
    // Calls that nobody awaits still leave in their order, one by one.
    const turn = this.#last.then(() => this.#send(kind, source, payload))
    this.#last = turn.catch(() => {})
    try {
      return await turn
    } finally {
      this.#pending -= 1
    }
  }

  async #send(kind, source, payload) {
    // So the pod's log has it, too, and brokers go on from there while Redis is away.
    if (this.#echo && kind !== 'status') process.stdout.write(`${payload}\n`)
    const attempt = this.#publisher.begin(kind, source, payload)
    for (;;) {
      let answer
      try {
        answer = await withDeadline(this.#call(attempt.words), Math.min(ANSWER_MS, Publisher.left(attempt)))
      } catch (error) {
        await sleep(this.#publisher.shouldRetry(attempt, error))
        continue
      }
      return this.#publisher.settle(attempt, answer)
    }
  }

  #call(words) {
    const { keys } = this.#publisher
    if (typeof this.#client.fCall === 'function') {
      return this.#client.fCall('runcast_publish', { keys, arguments: words })
    }
    return this.#client.call('FCALL', 'runcast_publish', keys.length, ...keys, ...words)
  }

  async close() {
    await this.#last
    // destroy: close() would wait for a Redis that does not answer.
    if (this.#owned) this.#client.destroy()
  }
}

async function connect(url) {
  const { RUNCAST__REDIS__URL, REDIS_URL } = process.env
  const { createClient } = await import('redis')
  const client = createClient({ url: url ?? RUNCAST__REDIS__URL ?? REDIS_URL ?? 'redis://127.0.0.1:6379' })
  // It reconnects by itself; each event tells its own failure.
  client.on('error', () => {})
  // Not awaited: a Redis that is away is each event's trouble.
  client.connect().catch(() => {})
  return client
}

async function withDeadline(promise, ms) {
  const abort = new AbortController()
  const late = sleep(ms, undefined, { signal: abort.signal }).then(() => {
    throw new Error(`no answer within ${Math.round(ms)} ms`)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    abort.abort()
    late.catch(() => {})
    promise.catch(() => {})
  }
}
