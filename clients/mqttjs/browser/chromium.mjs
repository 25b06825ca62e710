// Opens a page in Chromium that runs the driver with MQTT.js's build for browsers, and prints what the page tells.

import { spawn } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { createServer } from 'node:http'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'

// Until Chromium asks for the page; a second is usual.
const START_SECONDS_MAX = 60
// Between two words of the page: more than one check may take.
const SILENCE_SECONDS_MAX = 90
// Until it has ended when it is told to.
const END_SECONDS_MAX = 10

const FOLDER = fileURLToPath(new URL('..', import.meta.url))
const ROOT = '/clients/mqttjs/'
const TYPES = { '.html': 'text/html', '.mjs': 'text/javascript', '.js': 'text/javascript' }

// The package `buffer`, which is CommonJS, as a module.
function bufferModule() {
  const source = (name) => JSON.stringify(readFileSync(join(FOLDER, 'node_modules', name, 'index.js'), 'utf8'))
  const sources = ['buffer', 'base64-js', 'ieee754'].map((name) => `${JSON.stringify(name)}: ${source(name)}`)
  return `const sources = {${sources.join(',\n')}}
const load = (name) => {
  const exports = {}
  new Function('exports', 'require', sources[name])(exports, load)
  return exports
}
export const { Buffer } = load('buffer')
`
}

function answer(path) {
  if (path === '/buffer.mjs') return [200, 'text/javascript', bufferModule()]
  const file = join(FOLDER, normalize(path.slice(ROOT.length - 1)))
  if (!path.startsWith(ROOT) || !existsSync(file)) return [404, 'text/plain', '']
  return [200, TYPES[extname(file)] ?? 'text/plain', readFileSync(file)]
}

// Ends the program with the exit status that the driver has in the page; with 3 if it does not get that far.
export async function runInChromium(protocol) {
  let end
  const ended = new Promise((resolve) => (end = resolve))
  let over = false
  const fail = (why) => {
    if (!over) console.error(why)
    end(3)
  }

  let timer
  const expectWord = (seconds, why) => {
    clearTimeout(timer)
    timer = setTimeout(() => fail(`${why} for ${seconds} s`), seconds * 1000)
  }
  const server = createServer((request, response) => {
    expectWord(SILENCE_SECONDS_MAX, 'the page has said nothing')
    const { pathname } = new URL(request.url, 'http://127.0.0.1')
    if (request.method !== 'POST') {
      const [status, type, body] = answer(pathname)
      response.writeHead(status, { 'Content-Type': type }).end(body)
      return
    }
    const parts = []
    request.on('data', (part) => parts.push(part))
    request.on('end', () => {
      const body = Buffer.concat(parts).toString()
      if (pathname === '/line') console.log(body)
      if (pathname === '/error') console.error(body)
      if (pathname === '/exit') end(Number(body))
      response.end()
    })
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))

  const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking']
  if (protocol === 'wss') {
    if (!process.env.NODE_EXTRA_CA_CERTS) throw new Error("NODE_EXTRA_CA_CERTS does not name the broker's certificate")
    // This certificate and no other.
    const { publicKey } = new X509Certificate(readFileSync(process.env.NODE_EXTRA_CA_CERTS))
    const key = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64')
    flags.push(`--ignore-certificate-errors-spki-list=${key}`)
  }
  // The pipes 3 and 4. Chromium ends itself when they are closed, even if this program is killed.
  const profile = mkdtempSync(join(tmpdir(), 'pantala-chromium-'))
  flags.push('--remote-debugging-pipe', `--user-data-dir=${profile}`)
  const query = new URLSearchParams([['protocol', protocol], ...process.argv.slice(2).map((argument) => ['argument', argument])])
  const page = `http://127.0.0.1:${server.address().port}${ROOT}browser/page.html?${query}`
  expectWord(START_SECONDS_MAX, 'Chromium has not asked for the page')
  const chromium = spawn('chromium', [...flags, page], { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'] })
  let words = ''
  chromium.stderr.on('data', (part) => (words = (words + part).slice(-2000)))
  chromium.stdio[4].resume()
  // A pipe may be gone before we close it.
  for (const pipe of chromium.stdio.slice(3)) pipe.on('error', () => {})
  const gone = new Promise((resolve) => {
    chromium.on('error', (error) => resolve(fail(`chromium: ${error.message}`)))
    chromium.on('exit', (code, signal) => resolve(fail(`Chromium has ended by itself with ${code ?? signal}: ${words.trim()}`)))
  })

  const status = await ended
  over = true
  clearTimeout(timer)
  chromium.stdio[3].end(`${JSON.stringify({ id: 1, method: 'Browser.close' })}\0`)
  const late = setTimeout(() => chromium.kill('SIGKILL'), END_SECONDS_MAX * 1000)
  await gone
  clearTimeout(late)
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  process.exit(status)
}
