/** Small drawings, without words: what they stand in says what they mean. */
import type { ReactNode } from 'react'

function icon(children: ReactNode) {
  return function Icon() {
    return (
      <svg className="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
        {children}
      </svg>
    )
  }
}

export const UpIcon = icon(<path d="m3.5 10 4.5-4.5 4.5 4.5" />)
export const DownIcon = icon(<path d="m3.5 6 4.5 4.5L12.5 6" />)
export const BackIcon = icon(<path d="M10 3.5 5.5 8l4.5 4.5" />)
export const SearchIcon = icon(
  <path d="M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9ZM10.5 10.5l3 3" />,
)
export const TailIcon = icon(<path d="M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10" />)
export const PauseIcon = icon(<path d="M5.5 3.5v9M10.5 3.5v9" />)
export const PlayIcon = icon(<path d="M5 3.5v9l7-4.5z" />)
export const CloseIcon = icon(<path d="m4 4 8 8M12 4l-8 8" />)
export const WrapIcon = icon(
  <path d="M2.5 4h11M2.5 8h9a2 2 0 0 1 0 4H8m1.5-1.5L8 12l1.5 1.5M2.5 12H5" />,
)
export const SaveIcon = icon(<path d="M8 2.5v7M5 7l3 3 3-3M3 13h10" />)
export const CopyIcon = icon(<path d="M5.5 5.5h7v7h-7zM3.5 10.5v-7h7" />)
export const HelpIcon = icon(
  <path d="M5.8 6a2.2 2.2 0 1 1 3.1 2c-.6.3-.9.7-.9 1.4M8 11.9v.1M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13Z" />,
)
export const SunIcon = icon(
  <path d="M8 10.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM8 1.5v1.5M8 13v1.5M1.5 8H3M13 8h1.5M3.4 3.4l1.1 1.1M11.5 11.5l1.1 1.1M12.6 3.4l-1.1 1.1M4.5 11.5l-1.1 1.1" />,
)
export const MoonIcon = icon(<path d="M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5Z" />)
export const SystemIcon = icon(<path d="M2.5 3.5h11v7h-11zM6 13.5h4M8 10.5v3" />)
