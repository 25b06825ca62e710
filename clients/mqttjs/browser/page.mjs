// Runs the driver in the page. Its lines and its exit status go to the program that has opened the page.

import { Buffer } from 'buffer'

// Requests may overtake each other; lines must not.
let told = Promise.resolve()
const tell = (what, body) => (told = told.then(() => fetch(`/${what}`, { method: 'POST', body })))

console.log = (line) => tell('line', line)
console.error = (line) => tell('error', line?.stack ?? String(line))
globalThis.Buffer = Buffer
globalThis.process = {
  argv: ['browser', 'driver', ...new URLSearchParams(location.search).getAll('argument')],
  exit: (status) => tell('exit', String(status)),
  on(event, handle) {
    if (event === 'unhandledRejection') addEventListener('unhandledrejection', ({ reason }) => handle(reason))
  },
}

try {
  const { TRANSPORT } = await import('../client.mjs')
  Object.assign(TRANSPORT, { protocol: new URLSearchParams(location.search).get('protocol'), path: '/mqtt' })
  await import('../driver.mjs')
  // Heard only where the driver has not ended the program itself.
  process.exit(0)
} catch (error) {
  console.error(error)
  process.exit(3)
}
