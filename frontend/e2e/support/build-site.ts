/** Builds the test's pages, once for all tests. */
import { join } from 'node:path'
import { build } from 'vite'

export const SITE_DIRECTORY = join(import.meta.dirname, '../dist')

export default async function buildSite(): Promise<void> {
  await build({
    configFile: false,
    root: join(import.meta.dirname, '../app'),
    logLevel: 'error',
    build: {
      outDir: SITE_DIRECTORY,
      emptyOutDir: true,
      rolldownOptions: {
        input: ['index.html', 'plain.html'].map((name) =>
          join(import.meta.dirname, '../app', name),
        ),
      },
    },
  })
}
