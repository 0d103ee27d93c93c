/** A flood of plain events, and how a page has to bear it. */
import { expect, type Page } from '@playwright/test'
import { watchFrames } from './frames.js'
import type { Redis } from './redis.js'

/** How often a second's worth is published, a part at once. */
const PARTS = 10
/** What the 95th percentile of a page's frames may take, in milliseconds. */
const FRAME_MAX_MS = 50
/** Which part of the time its main thread may compute. */
const BUSY_MAX = 0.5

export interface Flood {
  /** Events per second. */
  rate: number
  seconds: number
  /** What event number `n` says, from 1. */
  data: (n: number) => string
  /** Called after each second's worth. */
  onSecond?: (second: number) => Promise<void>
}

/** Publishes to run 42, by the clock; returns how many seconds it took. */
async function publish(redis: Redis, { rate, seconds, data, onSecond }: Flood): Promise<number> {
  const size = rate / PARTS
  const begun = Date.now()
  for (let part = 0; part < seconds * PARTS; part += 1) {
    const due = begun + (part / PARTS) * 1000
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - Date.now())))
    const batch = redis.client.multi()
    for (let i = 1; i <= size; i += 1) {
      batch.publish('run:42:output:stdout', data(part * size + i))
    }
    await batch.execAsPipeline()
    if ((part + 1) % PARTS === 0) await onSecond?.((part + 1) / PARTS)
  }
  return (Date.now() - begun) / 1000
}

/**
 * Floods a page that follows run 42 until `drawn`, and expects it to have drawn
 * all the while. What the machine is to blame for is forgiven: as much longer as
 * the page's own work had to wait for the processor, and as much longer as it
 * computes at always the same piece of work. RUNCAST_TEST_FRAMES=1 forgives
 * nothing.
 */
export async function floodPage(
  page: Page,
  redis: Redis,
  flood: Flood,
  drawn: () => Promise<void>,
) {
  const watched = await watchFrames(page)
  const took = await publish(redis, flood)
  await drawn()
  const { count, p95, longest, busy, starved, slow } = await watched()
  console.info(
    `${flood.rate * flood.seconds} events in ${took.toFixed(1)} s: ${count} frames, ` +
      `p95 ${p95.toFixed(1)} ms, longest ${longest.toFixed(0)} ms; ` +
      `main thread ${(busy * 100).toFixed(0)} % busy, ` +
      `${starved.toFixed(2)} times as long for want of a processor, ` +
      `${slow.toFixed(2)} times as long for a slow one`,
  )
  const strict = process.env.RUNCAST_TEST_FRAMES !== undefined
  if (strict) expect(took).toBeLessThan(flood.seconds * 1.2)
  expect(count).toBeGreaterThan(flood.seconds)
  expect(p95).toBeLessThan(FRAME_MAX_MS * (strict ? 1 : starved * slow))
  expect(busy).toBeLessThan(BUSY_MAX * (strict ? 1 : slow))
}
