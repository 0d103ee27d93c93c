'use client'

import { StreamBadge, useAgentStream } from '@runcast/client/react'
import { useSearchParams } from 'next/navigation'

/** What a run says, as it says it. Where from, `.env.local` tells. */
export function Run() {
  const runId = useSearchParams().get('run') ?? 'demo'
  const stream = useAgentStream(runId, { fallback: true })

  return (
    <>
      <h1>Run {runId}</h1>
      <p>
        <StreamBadge stream={stream} /> {stream.total} events, status {stream.status ?? 'unknown'}
      </p>
      <pre>
        {stream.events.map((event) => (
          <div key={event.id}>
            {typeof event.data === 'string' ? event.data : JSON.stringify(event.data)}
          </div>
        ))}
      </pre>
    </>
  )
}
