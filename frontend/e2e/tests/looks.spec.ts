/** Whether everybody can read it. */
import AxeBuilder from '@axe-core/playwright'
import { expect, openRun, test } from '../support/test.js'

for (const colorScheme of ['light', 'dark'] as const) {
  test(`the badge is accessible in the ${colorScheme} theme`, async ({ page, site, broker }) => {
    await page.emulateMedia({ colorScheme })
    await openRun(page, site, broker)
    const badge = page.getByRole('status')
    await expect(badge).toHaveText('Redis Streaming')
    const check = async () => {
      const { violations } = await new AxeBuilder({ page }).analyze()
      expect(violations).toEqual([])
    }
    await check()
    await page.context().setOffline(true)
    await expect(badge).toHaveText('Offline')
    await check()
    await page.context().setOffline(false)
    await page.getByRole('button', { name: 'Pause' }).click()
    await expect(badge).toHaveText('Paused')
    await check()
    await page.getByRole('button', { name: 'Resume' }).click()
    await broker.kill()
    await expect(badge).toHaveText(/Reconnecting/)
    await check()
  })
}
