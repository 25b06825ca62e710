// What a broker owes to MQTT.js in a browser over TLS: the same. NODE_EXTRA_CA_CERTS names the broker's certificate.

import { runInChromium } from './browser/chromium.mjs'

await runInChromium('wss')
