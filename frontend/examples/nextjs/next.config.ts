import type { NextConfig } from 'next'

// Plain files in `out/`, which any server can serve: the page needs no Node.
const config: NextConfig = {
  output: 'export',
  turbopack: { root: `${import.meta.dirname}/../..` },
}

export default config
