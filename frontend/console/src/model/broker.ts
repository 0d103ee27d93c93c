/** The broker that serves this page. */
import { RuncastClient, type BrokerConfig } from '@runcast/client'
import { useEffect, useState } from 'react'

/** The page's own directory: a proxy may have put a path in front of it. */
export const BASE_URL = new URL('.', location.href).href.replace(/\/$/, '')

export const runcast = new RuncastClient({ baseUrl: BASE_URL })

let asked: Promise<BrokerConfig> | undefined

/** Returns what the broker offers; null until it has said so. */
export function useConfig(): BrokerConfig | null {
  const [config, setConfig] = useState<BrokerConfig | null>(null)
  useEffect(() => {
    let stopped = false
    asked ??= runcast.config()
    asked.then(
      (answer) => {
        if (!stopped) setConfig(answer)
      },
      // Without an answer every backend is offered; the stream says what is wrong.
      () => (asked = undefined),
    )
    return () => {
      stopped = true
    }
  }, [])
  return config
}
