// Compiled, not run: what the types allow and what they refuse.
import { Redis } from 'ioredis'
import { createClient } from 'redis'

import { Run, RuncastError, type RunOptions } from '../index.js'

const options: RunOptions = { client: createClient(), producer: 'worker-0', options: ['MAXLEN', 5] }
const id: string = await Run.with('42', options, async run => {
  await run.log('warn', 'late', { batch: 7 })
  return run.output({ step: 1, note: undefined })
})
const run = await Run.open('42', { client: new Redis() })
// @ts-expect-error a function is no JSON
await run.output(() => id)
// @ts-expect-error no such kind
await run.publish('event', 1)
// @ts-expect-error made by Run.open
new Run()
export const isClosed = (error: unknown): boolean => error instanceof RuncastError && error.code === 'CLOSED'
