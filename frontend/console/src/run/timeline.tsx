/** The statuses a run went through, each as long as it took. */
import type { StatusChange } from '../model/run-log'
import { clock, longSpan, statusTone } from '../model/words'
import { useNow } from '../ui/use-now'

interface TimelineProps {
  statuses: readonly StatusChange[]
  /** When the run ended, or said its last word, once it is over. */
  overAt: number | null
  /** How far the broker's clock is ahead. */
  ahead: number
  onPick: (change: StatusChange) => void
}

/** A short one is still wide enough to be hit: its percentage of the whole, at least. */
const PERCENT_MIN = 2

export function Timeline({ statuses, overAt, ahead, onPick }: TimelineProps) {
  const now = useNow() + ahead
  const first = statuses[0]
  if (!first) return null
  const last = Math.max(overAt ?? now, statuses.at(-1)?.ts ?? 0)
  const whole = Math.max(1, last - first.ts)
  return (
    <ol className="timeline" aria-label="Statuses of the run">
      {statuses.map((change, index) => {
        const next = statuses[index + 1]
        const took = (next?.ts ?? last) - change.ts
        // The status that ends a run takes no time.
        const isEnd = next === undefined && overAt !== null
        const words = isEnd ? change.status : `${change.status} · ${longSpan(took)}`
        return (
          <li
            key={change.seq}
            className={isEnd ? 'timeline-end' : undefined}
            style={isEnd ? undefined : { flexGrow: Math.max(PERCENT_MIN, (100 * took) / whole) }}
          >
            <button
              className={`segment ${statusTone(change.status)}`}
              title={`${words}, from ${clock(change.ts)}`}
              onClick={() => onPick(change)}
            >
              {words}
            </button>
          </li>
        )
      })}
    </ol>
  )
}
