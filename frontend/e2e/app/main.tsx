/** A page that follows one run with the hook, as its address says. */
import type { BackendChoice, RunView } from '@runcast/client'
import { StreamBadge, useAgentStream, type AgentStreamControls } from '@runcast/client/react'
import { StrictMode, useEffect } from 'react'
import { createRoot } from 'react-dom/client'

declare global {
  interface Window {
    view: RunView<{ n?: number }> & AgentStreamControls
    numbers: () => number[]
  }
}

const query = new URLSearchParams(location.search)
const attempts = query.get('attempts')

function App() {
  const view = useAgentStream<{ n?: number }>(query.get('run'), {
    baseUrl: query.get('base') ?? undefined,
    backend: (query.get('backend') ?? undefined) as BackendChoice | undefined,
    fallback: query.get('fallback') === 'true',
    shared: query.get('shared') !== 'false',
    ...(attempts && { attempts: { redis: Number(attempts) } }),
  })
  useEffect(() => {
    window.view = view
    window.numbers = () => view.events.flatMap(({ data }) => (data.n === undefined ? [] : [data.n]))
  })
  return (
    <main>
      <h1>Run {query.get('run')}</h1>
      <p>
        <StreamBadge stream={view} /> <span id="total">{view.total}</span> events,{' '}
        <span id="gaps">{view.gaps.map(({ reason }) => reason).join(' ')}</span>
      </p>
      <button onClick={view.pause}>Pause</button> <button onClick={view.resume}>Resume</button>{' '}
      <button onClick={view.reconnect}>Reconnect</button>{' '}
      <button onClick={view.clear}>Clear</button>
      <pre>
        {view.events.slice(-100).map((event) => (
          <div key={event.id}>
            {event.ts} {event.source} {JSON.stringify(event.data)}
          </div>
        ))}
      </pre>
    </main>
  )
}

const root = document.getElementById('root')
if (root) {
  createRoot(root).render(
    <StrictMode>
      <App />
    </StrictMode>,
  )
}
