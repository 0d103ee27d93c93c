/** The runs the broker knows, asked for again and again while the page is seen. */
import type { RunSummary } from '@runcast/client'
import { useEffect, useState } from 'react'
import { runcast } from '../model/broker'

export interface Runs {
  runs: readonly RunSummary[]
  /** Why the list is old; null if it is not. */
  error: string | null
  loaded: boolean
  /** More runs than are listed. */
  more: boolean
}

const EVERY_MS = 2_000
const PAGE = 1_000
const PAGES_MAX = 10

async function all(signal: AbortSignal): Promise<{ runs: RunSummary[]; more: boolean }> {
  const runs: RunSummary[] = []
  let after: string | undefined
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const got = await runcast.runs({ limit: PAGE, signal, ...(after !== undefined && { after }) })
    runs.push(...got.runs)
    if (got.next === null) return { runs, more: false }
    after = got.next
  }
  return { runs, more: true }
}

/** Live ones first, then those that said something last. */
function inOrder(runs: RunSummary[]): RunSummary[] {
  return runs.sort(
    (a, b) =>
      Number(a.ended) - Number(b.ended) ||
      (b.last_event_ts ?? '').localeCompare(a.last_event_ts ?? '') ||
      a.run_id.localeCompare(b.run_id),
  )
}

export function useRuns(): Runs {
  const [state, setState] = useState<Runs>({ runs: [], error: null, loaded: false, more: false })
  useEffect(() => {
    const stop = new AbortController()
    let timer: ReturnType<typeof setTimeout> | undefined
    const look = async () => {
      clearTimeout(timer)
      try {
        const { runs, more } = await all(stop.signal)
        setState({ runs: inOrder(runs), error: null, loaded: true, more })
      } catch (error) {
        if (stop.signal.aborted) return
        const message = error instanceof Error ? error.message : String(error)
        setState((before) => ({ ...before, error: message, loaded: true }))
      }
      if (!stop.signal.aborted && !document.hidden) timer = setTimeout(() => void look(), EVERY_MS)
    }
    const onSeen = () => {
      if (!document.hidden) void look()
    }
    document.addEventListener('visibilitychange', onSeen)
    void look()
    return () => {
      stop.abort()
      clearTimeout(timer)
      document.removeEventListener('visibilitychange', onSeen)
    }
  }, [])
  return state
}
