/** How long to wait before the next attempt. */

/** What the delay doubles from, and its greatest value. */
export const BACKOFF_BASE_MS = 1_000
export const BACKOFF_MAX_MS = 30_000

/**
 * Returns the milliseconds before attempt number `attempt` (from 1): anything
 * up to a bound that doubles with each attempt, so that clients who lost a
 * broker together do not come back together; but never less than the broker
 * asked for.
 */
export function backoffDelay(attempt: number, retryMs: number, random: () => number): number {
  const bound = Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** Math.min(attempt, 10))
  return Math.max(retryMs, Math.round(random() * bound))
}
