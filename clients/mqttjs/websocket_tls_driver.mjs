// What a broker owes to MQTT.js over WebSocket and TLS: the same. NODE_EXTRA_CA_CERTS names the broker's certificate.

import { TRANSPORT } from './client.mjs'

Object.assign(TRANSPORT, { protocol: 'wss', path: '/mqtt' })
await import('./driver.mjs')
