/** The package without a framework, and in a worker, for the tests to call. */
import { AgentStream, openStream, RuncastClient } from '@runcast/client'

declare global {
  interface Window {
    runcast: {
      AgentStream: typeof AgentStream
      openStream: typeof openStream
      RuncastClient: typeof RuncastClient
    }
    /** Follows a run in a worker; its events' types once it has ended. */
    followInWorker: (baseUrl: string, run: string) => Promise<string[]>
  }
}

window.runcast = { AgentStream, openStream, RuncastClient }
window.followInWorker = (baseUrl, run) =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' })
    worker.onmessage = ({ data }: MessageEvent<string[]>) => resolve(data)
    worker.onerror = ({ message }) => reject(new Error(message))
    worker.postMessage({ baseUrl, run })
  })
