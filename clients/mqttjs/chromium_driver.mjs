// What a broker owes to MQTT.js in a browser: the same.

import { runInChromium } from './browser/chromium.mjs'

await runInChromium('ws')
