/** Follows a run to its end. */
import { AgentStream } from '@runcast/client'

interface Task {
  baseUrl: string
  run: string
}

addEventListener('message', ({ data: { baseUrl, run } }: MessageEvent<Task>) => {
  void (async () => {
    const types: string[] = []
    for await (const event of new AgentStream(run, { baseUrl })) types.push(event.type)
    postMessage(types)
  })()
})
