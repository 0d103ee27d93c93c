/** Above a run's events: what it is called, how it is, where it comes from. */
import type { BackendChoice, StreamState } from '@runcast/client'
import { StreamBadge } from '@runcast/client/react'
import { useConfig } from '../model/broker'
import type { RunSession } from '../model/run-session'
import { events, span, statusTone } from '../model/words'
import { BackIcon, PauseIcon, PlayIcon } from '../ui/icons'
import { useNow } from '../ui/use-now'
import { Rate } from './rate'

interface RunHeadProps {
  session: RunSession
  state: StreamState
  backend: BackendChoice | null
  onBackend: (backend: BackendChoice | null) => void
  onBack: () => void
  quiet: boolean
  onQuiet: () => void
}

/** A run that said nothing for so long is quiet. */
const QUIET_MS = 10_000

export function RunHead(props: RunHeadProps) {
  const { session, state, backend, onBackend, onBack, quiet, onQuiet } = props
  useNow()
  const { log, runId } = session
  const { connection, status, end } = state
  const shown = end?.status ?? status
  const ago = log.lastTs === null ? null : log.rate.now() - log.lastTs
  const isLive = connection === 'open'
  const isQuiet = isLive && (ago === null || ago > QUIET_MS)
  return (
    <header className="run-head">
      <button className="quiet-button back" aria-label="All runs" onClick={onBack}>
        <BackIcon />
      </button>
      <h1 title={runId}>{runId}</h1>
      {shown !== null && <span className={`pill ${statusTone(shown)}`}>{shown}</span>}
      <StreamBadge stream={state} className="badge" />
      <span className="run-facts faint">
        <span className="figure">{events(log.total)}</span>
        {ago !== null && <span>last {span(ago)} ago</span>}
      </span>
      {(isQuiet || quiet) && (
        <button className="link-button" aria-expanded={quiet} onClick={onQuiet}>
          Why is it quiet?
        </button>
      )}
      <span className="run-head-end">
        <Rate log={log} />
        <BackendSelect backend={backend} onBackend={onBackend} />
        {connection === 'paused' ? (
          <button className="tool" onClick={session.resume}>
            <PlayIcon /> Resume
          </button>
        ) : connection === 'failed' ? (
          <button className="tool" onClick={session.reconnect}>
            <PlayIcon /> Reconnect
          </button>
        ) : (
          <button className="tool" disabled={connection === 'ended'} onClick={session.pause}>
            <PauseIcon /> Pause
          </button>
        )}
      </span>
    </header>
  )
}

interface BackendSelectProps {
  backend: BackendChoice | null
  onBackend: (backend: BackendChoice | null) => void
}

function BackendSelect({ backend, onBackend }: BackendSelectProps) {
  const config = useConfig()
  const choices: BackendChoice[] = ['redis', 'kubectl', 'auto']
  const offered = choices.filter((choice) => {
    if (choice === backend || !config) return true
    if (choice === 'kubectl') return config.backends.includes('kubectl')
    return choice === 'auto' || !config.backends.includes('embedded')
  })
  return (
    <select
      className="select"
      aria-label="Backend"
      title="Where events come from"
      value={backend ?? ''}
      onChange={(event) => onBackend((event.target.value || null) as BackendChoice | null)}
    >
      <option value="">{config ? `default (${config.default_backend})` : 'default'}</option>
      {offered.map((choice) => (
        <option key={choice}>{choice}</option>
      ))}
    </select>
  )
}
