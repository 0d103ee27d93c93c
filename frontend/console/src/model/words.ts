/** Numbers and times as people read them. */

const number = new Intl.NumberFormat('en')

export function count(value: number): string {
  return number.format(value)
}

export function events(value: number): string {
  return `${count(value)} event${value === 1 ? '' : 's'}`
}

/** Returns `3 s`, `2 min`, `5 h`, `4 d`. */
export function span(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`
  return `${Math.floor(seconds / 86_400)} d`
}

/** Returns `2 min 13 s`: two units where one is coarse. */
export function longSpan(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds >= 60 && seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes >= 60 && minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
  return span(ms)
}

const pad = (value: number, digits = 2) => String(value).padStart(digits, '0')

/** Returns the time of day here, with milliseconds. */
export function clock(ms: number): string {
  const at = new Date(ms)
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => pad(part))
  return `${time.join(':')}.${pad(at.getMilliseconds(), 3)}`
}

/** Returns the time since the run's beginning: `+1:02:03.456`. */
export function elapsed(ms: number): string {
  const all = Math.max(0, ms)
  const [hours, minutes] = [Math.floor(all / 3_600_000), Math.floor(all / 60_000) % 60]
  const seconds = `${pad(Math.floor(all / 1000) % 60)}.${pad(Math.floor(all % 1000), 3)}`
  return hours > 0 ? `+${hours}:${pad(minutes)}:${seconds}` : `+${minutes}:${seconds}`
}

export type Tone = 'live' | 'good' | 'bad' | 'idle'

const GOOD = new Set(['completed', 'complete', 'succeeded', 'success', 'done', 'passed'])
const BAD = new Set(['failed', 'failure', 'error', 'timeout', 'crashed', 'killed', 'oomkilled'])
const IDLE = new Set(['cancelled', 'canceled', 'skipped', 'paused', 'unknown'])

/** Returns which colour a status has. */
export function statusTone(status: string | null, ended = false): Tone {
  const word = status?.toLowerCase() ?? ''
  if (GOOD.has(word)) return 'good'
  if (BAD.has(word)) return 'bad'
  if (IDLE.has(word) || word === '' || ended) return 'idle'
  return 'live'
}
