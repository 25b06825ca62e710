// The frame of the driver: named checks, run in order, one line printed for each.
//
// A line is `ok NAME`, or `not ok NAME: WHY`. The exit status is 1 if any check failed. Checks share a broker, not topics: each gets
// a Topic Name prefix and Client Identifier prefix of its own, so that drivers can run beside each other and again.

import { randomBytes } from 'node:crypto'
import { isDeepStrictEqual, inspect } from 'node:util'

// The most one check may take. A check waits for conditions, never for time to pass, so this is reached only in failure.
const CHECK_SECONDS_MAX = 60

// How long a single expected event may take before the check fails. Generous: the machine may be busy with a build.
export const EVENT_SECONDS_MAX = 10

export class CheckFailed extends Error {}

export function equal(what, got, expected) {
  if (!isDeepStrictEqual(got, expected)) throw new CheckFailed(`${what}: expected ${brief(expected)}, got ${brief(got)}`)
}

export function check(what, condition) {
  if (!condition) throw new CheckFailed(what)
}

function brief(value) {
  const text = inspect(value, { depth: 5, breakLength: Infinity, maxArrayLength: 12, maxStringLength: 100 })
  return text.length <= 300 ? text : `${text.slice(0, 260)}... (${text.length} characters)`
}

// Settles as `promise` does, or fails with `what` after `seconds`.
export function within(seconds, promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new CheckFailed(`${what}, not within ${seconds} s`)), seconds * 1000)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

export async function main(library, checksFor) {
  const args = process.argv.slice(2)
  if (args.length === 1 && args[0] === '--list') {
    for (const [name] of checksFor('', 0)) console.log(name)
    return
  }
  const only = args.length === 4 && args[2] === '--only' ? args.splice(2)[1] : ''
  if (args.length !== 2 || !/^\d+$/.test(args[1])) {
    console.error('usage: DRIVER HOST PORT [--only TEXT] | DRIVER --list')
    process.exit(2)
  }
  const runId = randomBytes(4).toString('hex')
  const chosen = checksFor(args[0], Number(args[1])).map(([name, run], number) => ({ name, run, number }))
  let failed = 0
  let ran = 0
  for (const { name, run, number } of chosen) {
    if (!name.includes(only)) continue
    ran += 1
    try {
      await within(CHECK_SECONDS_MAX, run(`clients/${library}/${runId}/${number}`), 'the check did not end')
      console.log(`ok ${name}`)
    } catch (error) {
      failed += 1
      const where = (error.stack ?? '').split('\n').filter((line) => line.includes('/clients/mqttjs/') && !line.includes('node_modules'))
      const place = where.map((line) => /([^/]+:\d+):\d+\)?$/.exec(line)?.[1]).filter((at) => at && !at.startsWith('checks')).slice(0, 2)
      const kind = error instanceof CheckFailed ? '' : `${error.name}: `
      console.log(`not ok ${name}: ${`${kind}${error.message}`.replace(/\s+/g, ' ')} (${place.join(' < ')})`)
    }
  }
  if (ran === 0) console.error(`no check's name contains ${JSON.stringify(only)}`)
  // A client that a failed check left open would keep the process alive.
  process.exit(ran === 0 ? 2 : failed ? 1 : 0)
}
