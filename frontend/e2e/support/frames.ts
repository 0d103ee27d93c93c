/** How smoothly a page draws, and what that costs its main thread. */
import type { CDPSession, Page } from '@playwright/test'

export interface Frames {
  count: number
  /** Milliseconds from one frame to the next: at the 95th percentile, and the longest. */
  p95: number
  longest: number
  /** Which part of the time the page's main thread computed. */
  busy: number
  /**
   * How much longer the main thread's work took than it computed: 1 on a quiet
   * machine, 2 where it had to wait for the processor half of the time.
   */
  starved: number
  /** How much longer the page computes than where `PIECE_SECONDS` was measured. */
  slow: number
}

/** What `pieceOfWork` computes for on the machine that limits are meant for. */
const PIECE_SECONDS = 0.1

/** Always the same work, of the sort that a page does. */
function pieceOfWork(): number {
  const texts = Array.from({ length: 200 }, (_, n) =>
    JSON.stringify({ n, text: 'word '.repeat(n) }),
  )
  let sum = 0
  for (let turn = 0; turn < 300; turn += 1) {
    for (const text of texts) sum += (JSON.parse(text) as { text: string }).text.length
  }
  return sum
}

/** Counts a page's frames from now on; the function returned says how they were. */
export async function watchFrames(page: Page): Promise<() => Promise<Frames>> {
  const context = page.context()
  const sessions = await Promise.all([context.newCDPSession(page), context.newCDPSession(page)])
  const [computed, passed] = sessions
  await computed.send('Performance.enable', { timeDomain: 'threadTicks' })
  await passed.send('Performance.enable', { timeDomain: 'timeTicks' })
  const look = async () => {
    const [work, time] = [await metricsOf(computed), await metricsOf(passed)]
    return { work: work.TaskDuration, took: time.TaskDuration, at: time.Timestamp }
  }
  await page.evaluate(() => {
    const frames: number[] = []
    let before = performance.now()
    const onFrame = (now: number) => {
      frames.push(now - before)
      before = now
      requestAnimationFrame(onFrame)
    }
    requestAnimationFrame(onFrame)
    Object.assign(window, { frames })
  })
  // Once more, when it is compiled.
  await page.evaluate(pieceOfWork)
  const before = await look()
  await page.evaluate(pieceOfWork)
  const begun = await look()
  const piece = begun.work - before.work
  await page.evaluate(() => (window as unknown as { frames: number[] }).frames.splice(0))
  return async () => {
    const ended = await look()
    const frames = await page.evaluate(() => (window as unknown as { frames: number[] }).frames)
    await Promise.all(sessions.map((session) => session.detach()))
    frames.sort((a, b) => a - b)
    const work = ended.work - begun.work
    return {
      count: frames.length,
      p95: frames[Math.floor(frames.length * 0.95)] ?? Infinity,
      longest: frames.at(-1) ?? Infinity,
      busy: work / (ended.at - begun.at),
      starved: Math.max(1, (ended.took - begun.took) / work),
      slow: Math.max(1, piece / PIECE_SECONDS),
    }
  }
}

interface Metrics {
  /** Seconds that the main thread spent on tasks; and the clock, in seconds. */
  TaskDuration: number
  Timestamp: number
}

async function metricsOf(session: CDPSession): Promise<Metrics> {
  const { metrics } = await session.send('Performance.getMetrics')
  const value = (name: string) => metrics.find((each) => each.name === name)?.value ?? NaN
  return { TaskDuration: value('TaskDuration'), Timestamp: value('Timestamp') }
}
