/** “Why is it quiet?”: what the broker says of a run from which nothing comes. */
import type { RunDetail } from '@runcast/client'
import { useEffect, useState } from 'react'
import { runcast } from '../model/broker'
import { count, events } from '../model/words'
import { CloseIcon } from '../ui/icons'

const EVERY_MS = 5_000

type Answer = { run: RunDetail } | { error: string } | null

function useDetail(runId: string): Answer {
  const [answer, setAnswer] = useState<Answer>(null)
  useEffect(() => {
    const stop = new AbortController()
    let timer: ReturnType<typeof setTimeout> | undefined
    const look = async () => {
      try {
        setAnswer({ run: await runcast.run(runId, { signal: stop.signal }) })
      } catch (error) {
        if (!stop.signal.aborted) setAnswer({ error: (error as Error).message })
      }
      if (!stop.signal.aborted) timer = setTimeout(() => void look(), EVERY_MS)
    }
    void look()
    return () => {
      stop.abort()
      clearTimeout(timer)
    }
  }, [runId])
  return answer
}

export function Quiet({ runId, onClose }: { runId: string; onClose: () => void }) {
  const answer = useDetail(runId)
  return (
    <section className="quiet-panel" aria-label="Why is it quiet?">
      <div aria-live="polite">
        {answer === null && <p>Asking the broker…</p>}
        {answer && 'error' in answer && <p className="bad-text">{answer.error}</p>}
        {answer && 'run' in answer && <Words run={answer.run} />}
      </div>
      <button className="quiet-button" aria-label="Close" onClick={onClose}>
        <CloseIcon />
      </button>
    </section>
  )
}

function Words({ run }: { run: RunDetail }) {
  const { output = 0, status = 0, log = 0 } = run.events ?? {}
  return (
    <>
      <p>
        <strong>{run.quiet_because ?? 'It is not quiet: events come.'}</strong>
      </p>
      <p className="faint">
        {run.events === null
          ? 'No durable events'
          : `Kept: ${count(output)} output, ${count(status)} status, ${count(log)} log`}
        {' · '}
        {count(run.clients)} watching here
        {run.gaps.length > 0 && ` · ${events(run.gaps.length).replace('event', 'gap')} known`}
      </p>
    </>
  )
}
