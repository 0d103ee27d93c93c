'use client'
/** What React needs: the hook and the badge. */
export { useAgentStream } from './react/use-agent-stream.js'
export type { UseAgentStreamOptions, UseAgentStreamSelect } from './react/use-agent-stream.js'
export type { AgentStreamControls } from './react/stream-handle.js'
export { badgeLabel, badgeTone, StreamBadge } from './react/stream-badge.js'
export type { BadgeState, BadgeTone, StreamBadgeProps } from './react/stream-badge.js'
