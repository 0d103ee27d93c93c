/** Debian's own Chromium, unless another is named. */
export const CHROMIUM = process.env.RUNCAST_TEST_CHROMIUM ?? '/usr/bin/chromium'
