/** What the page shows is in its address: `?run=42&backend=redis&event=ID`. */
import type { BackendChoice } from '@runcast/client'
import { useSyncExternalStore } from 'react'

export interface Address {
  run: string | null
  backend: BackendChoice | null
  /** The event that the page is to show. */
  event: string | null
}

/** What a run may be called. */
const RUN_ID = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$/

export function isRunId(text: string): boolean {
  return RUN_ID.test(text)
}

const nonEmpty = (text: string | null) => (text === '' ? null : text)

export function readAddress(search: string): Address {
  const query = new URLSearchParams(search)
  const backend = query.get('backend')
  const known = backend === 'redis' || backend === 'kubectl' || backend === 'auto'
  return {
    run: nonEmpty(query.get('run')),
    backend: known ? backend : null,
    event: nonEmpty(query.get('event')),
  }
}

export function writeAddress({ run, backend, event }: Address): string {
  const query = new URLSearchParams()
  if (run !== null) query.set('run', run)
  if (backend !== null) query.set('backend', backend)
  if (event !== null) query.set('event', event)
  const text = query.toString()
  return text === '' ? location.pathname : `?${text}`
}

const listeners = new Set<() => void>()
addEventListener('popstate', () => listeners.forEach((listener) => listener()))

/** Goes to another address, as following a link does. */
export function go(address: Address): void {
  history.pushState(null, '', writeAddress(address))
  listeners.forEach((listener) => listener())
}

const subscribe = (listener: () => void) => {
  listeners.add(listener)
  return () => void listeners.delete(listener)
}

let last: { search: string; address: Address } | undefined

/** Returns the address, and renders again when it changes. */
export function useAddress(): Address {
  return useSyncExternalStore(subscribe, () => {
    if (last?.search !== location.search) {
      last = { search: location.search, address: readAddress(location.search) }
    }
    return last.address
  })
}
