import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

/** Where `npm run dev` finds a broker. */
const BROKER = process.env.RUNCAST_URL ?? 'http://127.0.0.1:8000'

export default defineConfig({
  // A proxy may put a path in front of the page.
  base: './',
  plugins: [react()],
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
