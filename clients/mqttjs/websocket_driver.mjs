// What a broker owes to MQTT.js over WebSocket: the same.

import { TRANSPORT } from './client.mjs'

Object.assign(TRANSPORT, { protocol: 'ws', path: '/mqtt' })
await import('./driver.mjs')
