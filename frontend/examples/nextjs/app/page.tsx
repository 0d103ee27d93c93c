import { Suspense } from 'react'
import { Run } from './run'

/** `/?run=42` follows run 42. */
export default function Page() {
  return (
    <main>
      <Suspense>
        <Run />
      </Suspense>
    </main>
  )
}
