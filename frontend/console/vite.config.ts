import { gzipSync } from 'node:zlib'
import react from '@vitejs/plugin-react'
import { defineConfig, type Plugin } from 'vite'

/** Where `npm run dev` finds a broker. */
const BROKER = process.env.RUNCAST_URL ?? 'http://127.0.0.1:8000'

/** Packs what is loaded: the broker sends files as they are. */
const packed: Plugin = {
  name: 'packed',
  apply: 'build',
  generateBundle(_options, bundle) {
    for (const [fileName, file] of Object.entries(bundle)) {
      if (!/\.(js|css)$/.test(fileName)) continue
      const source = gzipSync(file.type === 'chunk' ? file.code : file.source, { level: 9 })
      this.emitFile({ type: 'asset', fileName: `${fileName}.gz`, source })
    }
  },
}

export default defineConfig({
  // A proxy may put a path in front of the page.
  base: './',
  plugins: [react(), packed],
  build: {
    outDir: 'dist',
    // The directory itself is part of the repository, so that the broker's build
    // can watch it; see package.json for what empties it.
    emptyOutDir: false,
    // Nothing may be inlined: the page's policy admits this origin's files only.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { '/api': BROKER, '/health': BROKER } },
  preview: { proxy: { '/api': BROKER, '/health': BROKER } },
})
