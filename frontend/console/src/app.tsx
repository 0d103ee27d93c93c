/** The page: runs beside one run; on a narrow screen one of the two. */
import { useCallback, useEffect, useRef, useState, type MouseEvent } from 'react'
import { go, useAddress } from './model/address'
import { RunPage } from './run/run-page'
import { RunsList } from './runs/runs-list'
import { Help } from './ui/help'
import { ThemeButton } from './ui/theme-button'
import { useShortcuts } from './ui/use-shortcuts'

const SAID_MS = 2_500

export function App() {
  const { run, backend, event } = useAddress()
  const [said, say] = useSaid()
  useEffect(() => {
    document.title = run === null ? 'Runcast' : `${run} · Runcast`
  }, [run])
  useShortcuts({
    r: () => document.querySelector<HTMLElement>('[data-shortcut=runs]')?.focus(),
  })
  const home = (event: MouseEvent) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return
    event.preventDefault()
    go({ run: null, backend: null, event: null })
  }
  return (
    <div className="app" data-run={run !== null}>
      <aside className="side">
        <div className="brand">
          <a href="./" onClick={home}>
            <img src="./icon.svg" alt="" width="22" height="22" /> Runcast
          </a>
          <span className="tools">
            <Help />
            <ThemeButton />
          </span>
        </div>
        <RunsList current={{ run, backend }} />
      </aside>
      {run === null ? (
        <main className="welcome">
          <h1>Choose a run</h1>
          <p className="faint">
            Open one of the list, or type the id of a run that has not begun yet and press Enter.
          </p>
          <pre>{`redis-cli PUBLISH run:42:output:stdout '{"step":1}'`}</pre>
        </main>
      ) : (
        <RunPage
          key={`${run} ${backend ?? ''}`}
          run={run}
          backend={backend}
          event={event}
          onSaid={say}
        />
      )}
      <div className="said" role="status" data-shown={said !== ''}>
        {said}
      </div>
    </div>
  )
}

/** Words that go away by themselves. */
function useSaid(): [string, (words: string) => void] {
  const [said, setSaid] = useState('')
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined)
  const say = useCallback((words: string) => {
    clearTimeout(timer.current)
    setSaid(words)
    timer.current = setTimeout(() => setSaid(''), SAID_MS)
  }, [])
  return [said, say]
}
