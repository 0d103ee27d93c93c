/** A link to one event: shows it as soon as it is there. */
import type { Connection } from '@runcast/client'
import { useEffect, useState } from 'react'
import type { RunLog } from '../model/run-log'

/** What is kept has come, if nothing more came for so long. */
const SETTLED_MS = 3_000

/** Returns whether the event of the address was found. */
export function useEventLink(
  log: RunLog,
  event: string | null,
  connection: Connection,
  show: (seq: number) => void,
): 'none' | 'waiting' | 'found' | 'missing' {
  const [result, setResult] = useState<{ event: string; found: boolean } | null>(null)
  const isLive = connection === 'open' || connection === 'ended'
  useEffect(() => {
    if (event === null) return
    let timer: ReturnType<typeof setTimeout> | undefined
    let looked = -1
    const look = () => {
      if (looked === log.total) return
      looked = log.total
      clearTimeout(timer)
      const row = log.find(event)
      if (row) {
        setResult({ event, found: true })
        off()
        // Once it has been drawn: only then the list knows of it.
        requestAnimationFrame(() => show(row.seq))
      } else if (isLive) {
        timer = setTimeout(() => setResult({ event, found: false }), SETTLED_MS)
      }
    }
    const off = log.subscribe(look)
    look()
    return () => {
      off()
      clearTimeout(timer)
    }
  }, [log, event, isLive, show])
  if (event === null) return 'none'
  if (result?.event !== event) return 'waiting'
  return result.found ? 'found' : 'missing'
}
