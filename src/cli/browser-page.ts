import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

/**
 * A page for a first look from a browser: MQTT over a secure WebSocket, by a presigned URL. One file that needs no
 * server; MQTT.js is inside. A URL behind `#` in the address is taken at once.
 *
 * @returns null where MQTT.js' bundle is not at hand (the single-file binary)
 */
export function browserPage(): string | null {
  let library: string
  try {
    library = readFileSync(createRequire(import.meta.url).resolve('mqtt/dist/mqtt.min'), 'utf8')
  } catch {
    return null
  }
  // Within a script element only this sequence would end it.
  return PAGE.replace('/* MQTT.js */', () => library.replaceAll('</script', '<\\/script'))
}

const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>brokergate from a browser</title>
<style>
  :root { color-scheme: light dark; --line: light-dark(#d0d7de, #3d444d); --ink: light-dark(#1f2328, #f0f6fc);
    --soft: light-dark(#59636e, #9198a1); --ground: light-dark(#ffffff, #0d1117); --raised: light-dark(#f6f8fa, #151b23);
    --good: light-dark(#1a7f37, #3fb950); --bad: light-dark(#cf222e, #f85149); --act: light-dark(#0969da, #4493f8) }
  body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 46rem;
    margin: 3rem auto; padding: 0 1.25rem }
  h1 { font-size: 1.4rem; margin: 0 0 .25rem }
  p { color: var(--soft); margin: 0 0 1.5rem }
  form { display: grid; grid-template-columns: 6rem 1fr auto; gap: .6rem .75rem; align-items: center; margin-bottom: 1rem }
  input, button { font: inherit; color: inherit; border: 1px solid var(--line); border-radius: 6px; padding: .4rem .6rem;
    background: var(--raised); min-width: 0 }
  button { cursor: pointer; color: #fff; background: var(--act); border-color: transparent }
  button:disabled { opacity: .5; cursor: default }
  :is(input, button):focus-visible { outline: 2px solid var(--act); outline-offset: 1px }
  #state { font-weight: 600 } #state.up { color: var(--good) } #state.down { color: var(--bad) }
  ol { list-style: none; margin: 1rem 0 0; padding: 0; border: 1px solid var(--line); border-radius: 6px; min-height: 8rem }
  li { display: flex; gap: 1rem; padding: .4rem .75rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
  li:last-child { border-bottom: 0 } li b { color: var(--soft); font-weight: 500; flex: 0 0 12rem }
</style>
<h1>brokergate from a browser</h1>
<p>MQTT over a secure WebSocket. Paste the line that <code>brokergate presign</code> prints; it is good for five minutes.</p>
<form id="connect">
  <label for="url">URL</label><input id="url" name="url" placeholder="wss://localhost:10443/mqtt?X-Amz-Algorithm=…" required>
  <button>Connect</button>
</form>
<form id="publish">
  <label for="topic">Topic</label><input id="topic" value="hello/browser"><span></span>
  <label for="payload">Message</label><input id="payload" value="it works"><button disabled>Publish</button>
</form>
<div id="state" role="status">Not connected.</div>
<ol id="messages" aria-label="Messages on hello/#"></ol>
<script>/* MQTT.js */</script>
<script>
  const at = (id) => document.getElementById(id)
  const button = document.querySelector('#publish button')
  let client = null
  const tell = (text, kind) => { at('state').textContent = text; at('state').className = kind }
  function connect(url) {
    client?.end(true)
    // A presigned URL is good for one try and a short while, so nothing is tried again by itself.
    client = mqtt.connect(url, { reconnectPeriod: 0, clientId: 'browser-' + Math.random().toString(36).slice(2, 10) })
    tell('Connecting …', '')
    client.on('connect', () => {
      tell('Connected. Listening on hello/#.', 'up')
      button.disabled = false
      client.subscribe('hello/#', { qos: 1 }, () => document.body.dataset.state = 'subscribed')
    })
    client.on('message', (topic, payload) => {
      const line = document.createElement('li')
      const name = document.createElement('b')
      name.textContent = topic
      line.append(name, payload.toString())
      at('messages').prepend(line)
      document.body.dataset.message = topic + ' ' + payload
    })
    client.on('error', (error) => tell('Refused: ' + error.message, 'down'))
    client.on('close', () => {
      button.disabled = true
      if (at('state').className === 'up') tell('The connection is closed.', 'down')
      else if (at('state').className === '') tell('No connection. Is the URL fresh, and is the certificate of the proxy trusted here?', 'down')
    })
  }
  at('connect').addEventListener('submit', (event) => { event.preventDefault(); connect(at('url').value.trim()) })
  at('publish').addEventListener('submit', (event) => {
    event.preventDefault()
    client?.publish(at('topic').value, at('payload').value, { qos: 1 })
  })
  if (location.hash.length > 1) { at('url').value = location.hash.slice(1); connect(at('url').value) }
</script>
</html>
`
