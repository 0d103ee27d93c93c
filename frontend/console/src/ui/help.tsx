/** Which keys there are. */
import { useRef } from 'react'
import { HelpIcon } from './icons'
import { useShortcuts } from './use-shortcuts'

const KEYS: readonly [string, string][] = [
  ['r', 'find or open a run'],
  ['/', 'search in the events'],
  ['n  N', 'next match, previous match'],
  ['j  k', 'next event, previous event'],
  ['Enter', 'unfold or fold the event'],
  ['g  G', 'to the beginning, to the newest'],
  ['f', 'follow the newest, or stop'],
  ['w', 'wrap long lines'],
  ['p', 'pause the stream, resume it'],
  ['?', 'this list'],
]

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null)
  const open = () => dialog.current?.showModal()
  useShortcuts({ '?': open })
  return (
    <>
      <button className="quiet-button" aria-label="Keys" title="Keys (?)" onClick={open}>
        <HelpIcon />
      </button>
      <dialog ref={dialog} aria-labelledby="help-title">
        <h2 id="help-title">Keys</h2>
        <dl className="keys">
          {KEYS.map(([key, does]) => (
            <div key={key}>
              <dt>
                {key.split('  ').map((each) => (
                  <kbd key={each}>{each}</kbd>
                ))}
              </dt>
              <dd>{does}</dd>
            </div>
          ))}
        </dl>
        <form method="dialog">
          <button className="tool">Close</button>
        </form>
      </dialog>
    </>
  )
}
