/** The broker that serves this page. */
import { RuncastClient } from '@runcast/client'

/** The page's own directory: a proxy may have put a path in front of it. */
export const BASE_URL = new URL('.', location.href).href.replace(/\/$/, '')

export const runcast = new RuncastClient({ baseUrl: BASE_URL })
