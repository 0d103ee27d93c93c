/** How much comes: a number, and the last minute as a small drawing. */
import type { RunLog } from '../model/run-log'
import { count } from '../model/words'
import { useNow } from '../ui/use-now'

const WIDTH = 96
const HEIGHT = 22

export function Rate({ log }: { log: RunLog }) {
  useNow()
  const seconds = log.rate.seconds()
  const most = Math.max(1, ...seconds)
  const now = average(seconds.slice(-3))
  const step = WIDTH / (seconds.length - 1)
  const points = seconds.map((value, i) => {
    return `${(i * step).toFixed(1)},${(HEIGHT - 1 - (value / most) * (HEIGHT - 3)).toFixed(1)}`
  })
  const shown = now > 0 && now < 10 ? now.toFixed(1) : count(Math.round(now))
  return (
    <span className="rate" title={`Events per second of the last minute; at most ${count(most)}`}>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} aria-hidden="true">
        <polygon points={`0,${HEIGHT} ${points.join(' ')} ${WIDTH},${HEIGHT}`} />
        <polyline points={points.join(' ')} />
      </svg>
      <span>
        <span className="figure">{shown}</span>/s
      </span>
    </span>
  )
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length)
}
