/** The Next.js example, built and driven for both values of its variable. */
import { execFile } from 'node:child_process'
import { cp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Broker } from '../support/broker.js'
import { freePort } from '../support/processes.js'
import { Site } from '../support/site.js'
import { expect, test } from '../support/test.js'

const EXAMPLES = join(import.meta.dirname, '../../examples')
const NOT_THE_SOURCE = /\/(node_modules|\.next|out|\.env\.local)$/

/** Builds the example with `.env.local` as given; returns the directory of its pages. */
async function build(name: string, environment: string): Promise<string> {
  const copy = join(EXAMPLES, `.test-${name}`)
  await rm(copy, { recursive: true, force: true })
  await cp(join(EXAMPLES, 'nextjs'), copy, {
    recursive: true,
    filter: (path) => !NOT_THE_SOURCE.test(path),
  })
  await writeFile(join(copy, '.env.local'), environment)
  const env = { ...process.env, NEXT_TELEMETRY_DISABLED: '1' }
  await promisify(execFile)('npx', ['next', 'build'], { cwd: copy, env })
  return join(copy, 'out')
}

for (const backend of ['redis', 'kubectl'] as const) {
  test(`the Next.js example with ${backend}`, async ({ page, redis, kube }) => {
    test.setTimeout(180_000)
    const port = await freePort()
    const directory = await build(
      backend,
      `NEXT_PUBLIC_STREAMING_BACKEND=${backend}\n` +
        `NEXT_PUBLIC_API_BASE_URL=http://127.0.0.1:${port}\n`,
    )
    const site = await Site.start(directory)
    const broker = await Broker.start(
      {
        'redis.url': redis.url,
        'kubectl.extra_args': `--kubeconfig=${kube.kubeconfig}`,
        // The page is not to ask the broker what it prefers.
        'streaming.default_backend': backend === 'redis' ? 'kubectl' : 'redis',
      },
      port,
    )
    await redis.untilLoaded()
    kube.addPod('42')
    kube.log('42', 'from a pod')
    await redis.append('42', 'output', 'from Redis')
    const errors: string[] = []
    page.on('pageerror', (error) => errors.push(error.message))

    await page.goto(`${site.url}/?run=42`)
    const badge = page.getByRole('status')
    const other = backend === 'redis' ? 'from a pod' : 'from Redis'
    await expect(badge).toHaveText(backend === 'redis' ? 'Redis Streaming' : 'Kubectl Streaming')
    await expect(page.locator('pre')).toHaveText(backend === 'redis' ? 'from Redis' : 'from a pod')
    if (backend === 'redis') {
      await broker.kill()
      await expect(badge).toHaveText(/^Reconnecting \(\d+\/10\)$/)
      await broker.restart()
      await expect(badge).toHaveText('Redis Streaming')
    }
    if (backend === 'redis') await redis.append('42', 'status', 'completed')
    else kube.finish('42')
    await expect(badge).toHaveText(/Ended: (completed|succeeded)/)
    await expect(page.locator('pre')).not.toContainText(other)
    expect(errors).toEqual([])
    await broker.end()
    await site.end()
  })
}
