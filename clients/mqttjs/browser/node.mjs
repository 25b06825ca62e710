// What the checks use of node:crypto and node:util, for a page.

import { Buffer } from 'buffer'

export function randomBytes(count) {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(count)))
}

// Of the values that the checks compare: primitives, bytes, arrays, sets and plain objects.
export function isDeepStrictEqual(a, b) {
  if (Object.is(a, b)) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (a instanceof Uint8Array || b instanceof Uint8Array) {
    return a instanceof Uint8Array && b instanceof Uint8Array && a.length === b.length && a.every((byte, index) => byte === b[index])
  }
  if (a instanceof Set || b instanceof Set) {
    return a instanceof Set && b instanceof Set && a.size === b.size && [...a].every((one) => [...b].some((other) => isDeepStrictEqual(one, other)))
  }
  if (Array.isArray(a) !== Array.isArray(b)) return false
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && isDeepStrictEqual(a[key], b[key]))
}

export function inspect(value) {
  const shown = (_, inner) => {
    if (inner instanceof Set) return [...inner]
    return typeof inner === 'undefined' ? 'undefined' : inner
  }
  return JSON.stringify(value, shown)
}
