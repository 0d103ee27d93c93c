/** A button that opens a short list of actions. */
import { useEffect, useRef, type ReactNode } from 'react'

interface MenuProps {
  label: string
  icon: ReactNode
  actions: readonly (readonly [label: string, action: () => void])[]
}

export function Menu({ label, icon, actions }: MenuProps) {
  const details = useRef<HTMLDetailsElement>(null)
  useEffect(() => {
    const close = (event: Event) => {
      const element = details.current
      if (!element?.open) return
      const isKey = event instanceof KeyboardEvent
      if (isKey ? event.key !== 'Escape' : element.contains(event.target as Node)) return
      element.open = false
      if (isKey) element.querySelector('summary')?.focus()
    }
    document.addEventListener('pointerdown', close)
    document.addEventListener('keydown', close)
    return () => {
      document.removeEventListener('pointerdown', close)
      document.removeEventListener('keydown', close)
    }
  }, [])
  const act = (action: () => void) => {
    if (details.current) details.current.open = false
    action()
  }
  return (
    <details className="menu" ref={details}>
      <summary className="tool" aria-label={label} title={label}>
        {icon}
      </summary>
      <div className="menu-list">
        {actions.map(([words, action]) => (
          <button key={words} onClick={() => act(action)}>
            {words}
          </button>
        ))}
      </div>
    </details>
  )
}
