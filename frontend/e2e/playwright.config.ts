import { defineConfig } from '@playwright/test'
import { CHROMIUM } from './support/chromium.js'

export default defineConfig({
  testDir: 'tests',
  outputDir: 'test-results',
  globalSetup: './support/build-site.ts',
  fullyParallel: true,
  workers: 3,
  timeout: 60_000,
  expect: { timeout: 20_000 },
  forbidOnly: true,
  projects: [
    { name: 'all', testIgnore: '**/*flood*' },
    // What measures frames has the machine for itself.
    { name: 'floods', testMatch: '**/*flood*', workers: 1, dependencies: ['all'] },
  ],
  reporter: [['list']],
  use: {
    browserName: 'chromium',
    trace: 'retain-on-failure',
    launchOptions: {
      executablePath: CHROMIUM,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking'],
    },
  },
})
