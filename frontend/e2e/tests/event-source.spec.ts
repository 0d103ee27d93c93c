/** The browser's own EventSource against every endpoint, without our package. */
import { expect, test } from '../support/test.js'

const PATHS = [
  'stream',
  'stream?backend=redis',
  'stream?backend=auto',
  'stream?kinds=output,status',
  'stream/redis',
  'stream?backend=kubectl',
  'stream/kubectl',
]

for (const path of PATHS) {
  test(`EventSource reads ${path}`, async ({ page, site, redis, kube, broker }) => {
    kube.addPod('42')
    for (let n = 1; n <= 3; n += 1) {
      await redis.append('42', 'output', { n })
      kube.log('42', JSON.stringify({ n }))
    }
    await redis.append('42', 'status', 'completed')
    kube.finish('42')
    await page.goto(`${site.url}/plain.html`)
    const told = await page.evaluate((url) => {
      return new Promise<{ types: string[]; numbers: number[]; ids: string[] }>((resolve) => {
        const types: string[] = []
        const seen: number[] = []
        const ids: string[] = []
        const source = new EventSource(url)
        for (const type of ['hello', 'output', 'status', 'end']) {
          source.addEventListener(type, (event: MessageEvent<string>) => {
            types.push(type)
            const { data } = JSON.parse(event.data) as { data?: { n?: number } }
            if (type === 'output' && data?.n) seen.push(data.n)
            if (type !== 'hello') ids.push(event.lastEventId)
          })
        }
        // The page does not close it: the broker's 204 does.
        source.onerror = () => {
          if (source.readyState === EventSource.CLOSED) resolve({ types, numbers: seen, ids })
        }
      })
    }, `${broker.url}/api/v1/runs/42/${path}`)
    expect(told.numbers).toEqual([1, 2, 3])
    expect(told.types[0]).toBe('hello')
    expect(told.types.slice(-2)).toEqual(['status', 'end'])
    expect(new Set(told.ids).size).toBe(told.ids.length)
    expect(told.ids.at(-1)).toMatch(/-end$/)
  })
}
