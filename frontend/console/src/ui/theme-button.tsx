/** Light, dark, or as the system has it. */
import { useEffect } from 'react'
import { MoonIcon, SunIcon, SystemIcon } from './icons'
import { usePreference } from './preference'

const THEMES = ['system', 'light', 'dark'] as const
const ICONS = { system: SystemIcon, light: SunIcon, dark: MoonIcon }

export function ThemeButton() {
  const [theme, setTheme] = usePreference('theme', THEMES)
  useEffect(() => {
    document.documentElement.dataset.theme = theme
  }, [theme])
  const Icon = ICONS[theme]
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? 'system'
  return (
    <button
      className="quiet-button"
      onClick={() => setTheme(next)}
      aria-label={`Theme: ${theme}`}
      title={`Theme: ${theme}`}
    >
      <Icon />
    </button>
  )
}
