/** What a page downloads for each part of the package. */
import { gzipSync } from 'node:zlib'
import { rolldown } from 'rolldown'
import { expect, test } from 'vitest'

const source = (name: string) => new URL(`../src/${name}`, import.meta.url).pathname

/** Returns the bytes of `code` bundled, minified and compressed. */
async function gzipped(code: string): Promise<number> {
  const entry = 'entry.ts'
  const bundle = await rolldown({
    input: entry,
    external: ['react', 'react/jsx-runtime'],
    resolve: { extensionAlias: { '.js': ['.ts', '.tsx', '.js'] } },
    treeshake: { moduleSideEffects: false },
    plugins: [
      {
        name: 'entry',
        resolveId: (id) => (id === entry ? id : null),
        load: (id) => (id === entry ? code : null),
      },
    ],
  })
  const { output } = await bundle.generate({ format: 'esm', minify: true })
  await bundle.close()
  return gzipSync(output[0].code, { level: 9 }).length
}

test.each([
  ['AgentStream', 'index.ts', 6_000],
  ['RuncastClient', 'index.ts', 3_000],
  ['openStream', 'index.ts', 9_000],
  ['useAgentStream, StreamBadge', 'react.ts', 12_000],
])('%s of %s is at most %i bytes', async (names, file, most) => {
  const bytes = await gzipped(`export { ${names} } from ${JSON.stringify(source(file))}`)
  console.info(`${names}: ${bytes} bytes`)
  expect(bytes).toBeGreaterThan(500)
  expect(bytes).toBeLessThanOrEqual(most)
})
