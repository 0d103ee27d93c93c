/** `StreamBadge`: where a run comes from, and how the connection is. */
import type { CSSProperties, HTMLAttributes, ReactNode } from 'react'
import type { Backend } from '../events.js'
import type { StreamState } from '../state.js'

/** The parts of a stream's state that are shown: give it what the hook returns. */
export type BadgeState = Pick<StreamState, 'connection' | 'backend' | 'attempt' | 'attemptsMax'> &
  Partial<Pick<StreamState, 'status' | 'end' | 'error'>>

/** Which colours a badge has. */
export type BadgeTone = 'live' | 'waiting' | 'ended' | 'trouble' | 'quiet'

export interface StreamBadgeProps extends Omit<HTMLAttributes<HTMLSpanElement>, 'children'> {
  stream: BadgeState
  /** Other words, or another language. */
  label?: ((stream: BadgeState) => ReactNode) | undefined
  /** No styles at all: `data-tone` and `data-connection` say what to style. */
  unstyled?: boolean | undefined
}

const NAMES: Record<Backend, string> = {
  redis: 'Redis Streaming',
  kubectl: 'Kubectl Streaming',
  embedded: 'Embedded Streaming',
}

/** Returns the words of a badge. */
export function badgeLabel(stream: BadgeState): string {
  const { connection, backend, attempt, attemptsMax } = stream
  switch (connection) {
    case 'idle':
      return 'Not connected'
    case 'connecting':
      return 'Connecting'
    case 'open':
      return backend ? NAMES[backend] : 'Streaming'
    case 'reconnecting':
      return attempt > 0 ? `Reconnecting (${attempt}/${attemptsMax})` : 'Reconnecting'
    case 'paused':
      return 'Paused'
    case 'offline':
      return 'Offline'
    case 'ended': {
      const status = stream.end?.status ?? stream.status
      return status ? `Ended: ${status}` : 'Ended'
    }
    case 'failed':
      return 'Disconnected'
    case 'closed':
      return 'Closed'
  }
}

/** Returns which colours a badge has. */
export function badgeTone({ connection }: BadgeState): BadgeTone {
  switch (connection) {
    case 'open':
      return 'live'
    case 'connecting':
    case 'reconnecting':
      return 'waiting'
    case 'ended':
      return 'ended'
    case 'failed':
    case 'offline':
      return 'trouble'
    default:
      return 'quiet'
  }
}

/** Text and ground of each tone; 4.5 : 1 or better, on any page. */
const COLOURS: Record<BadgeTone, [text: string, ground: string]> = {
  live: ['#ffffff', '#166534'],
  waiting: ['#1c1400', '#facc15'],
  ended: ['#ffffff', '#1e40af'],
  trouble: ['#ffffff', '#b91c1c'],
  quiet: ['#ffffff', '#52525b'],
}

/**
 * A badge that tells assistive technology of changes by itself. Its colours are
 * the custom properties `--runcast-badge-<tone>-text` and
 * `--runcast-badge-<tone>-ground`, of any element around it.
 */
export function StreamBadge({ stream, label, unstyled, style, ...rest }: StreamBadgeProps) {
  const tone = badgeTone(stream)
  return (
    <span
      role="status"
      title={stream.error?.message}
      {...rest}
      data-tone={tone}
      data-connection={stream.connection}
      data-backend={stream.backend ?? undefined}
      style={unstyled ? style : { ...badgeStyle(tone), ...style }}
    >
      {(label ?? badgeLabel)(stream)}
    </span>
  )
}

function badgeStyle(tone: BadgeTone): CSSProperties {
  const [text, ground] = COLOURS[tone]
  return {
    display: 'inline-block',
    padding: '0.125em 0.625em',
    borderRadius: '1em',
    font: '600 0.8125em/1.5 system-ui, sans-serif',
    whiteSpace: 'nowrap',
    color: `var(--runcast-badge-${tone}-text, ${text})`,
    background: `var(--runcast-badge-${tone}-ground, ${ground})`,
  }
}
