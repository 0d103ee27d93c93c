/** The examples of the documentation compile as they stand there. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { expect, test } from 'vitest'

const PACKAGE = join(import.meta.dirname, '..')
const DOCUMENTS = ['README.md', '../../../README.md']

/** What the examples use of other frameworks, which are not installed. */
const FRAMEWORKS = `
declare module 'vue' {
  export function shallowRef<T>(value: T): { value: T }
  export function onScopeDispose(work: () => void): void
}
declare module 'svelte/store' {
  export function readable<T>(value: T, start: (set: (value: T) => void) => () => void): object
}
`

/** Returns each block of TypeScript in a document, under a file name of its own. */
function examples(document: string): [name: string, code: string][] {
  const text = readFileSync(join(PACKAGE, document), 'utf8')
  return [...text.matchAll(/^```(tsx?)\n([^]*?)^```$/gm)].map(([, kind, code], i) => [
    join(PACKAGE, 'test', `${document.replace(/\W/g, '-')}${i}.${kind ?? ''}`),
    // A module, also without an import.
    `${code ?? ''}\nexport {}\n`,
  ])
}

test('examples compile', { timeout: 60_000 }, () => {
  const files = new Map(DOCUMENTS.flatMap(examples))
  expect(files.size).toBeGreaterThan(8)
  const frameworks = join(PACKAGE, 'test/frameworks.d.ts')
  files.set(frameworks, FRAMEWORKS)

  const { config } = ts.readConfigFile(join(PACKAGE, 'tsconfig.json'), (path) =>
    ts.sys.readFile(path),
  ) as { config: unknown }
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, PACKAGE)
  const paths = {
    '@runcast/client': ['./src/index.ts'],
    '@runcast/client/react': ['./src/react.ts'],
  }
  const host = ts.createCompilerHost({ ...options, paths })
  const onDisk = ts.createCompilerHost(options)
  host.fileExists = (path) => files.has(path) || onDisk.fileExists(path)
  host.getSourceFile = (path, ...rest) => {
    const code = files.get(path)
    if (code === undefined) return onDisk.getSourceFile(path, ...rest)
    return ts.createSourceFile(path, code, ts.ScriptTarget.ES2022)
  }
  const program = ts.createProgram([...files.keys()], { ...options, paths }, host)
  const errors = ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
    const line =
      file && start !== undefined ? file.getLineAndCharacterOfPosition(start).line + 1 : 0
    return `${file?.fileName ?? ''}:${line} ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
  })
  expect(errors).toEqual([])
})
