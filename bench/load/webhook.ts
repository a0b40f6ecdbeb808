import { createServer } from 'node:http'

/** A custom authorizer that lets everybody in, in the process of the load; it counts how often it was asked. */
export interface Webhook {
  readonly url: string
  readonly asked: number
  close(): Promise<void>
}

const ANSWER = JSON.stringify({
  isAuthenticated: true,
  principalId: 'bench',
  disconnectAfterInSeconds: 86_400,
  refreshAfterInSeconds: 86_400,
  policyDocuments: [{ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: 'iot:*', Resource: '*' }] }],
})

export function startWebhook(): Promise<Webhook> {
  let asked = 0
  const server = createServer((request, response) => {
    asked++
    request.resume()
    request.on('end', () => {
      response.setHeader('content-type', 'application/json')
      response.end(ANSWER)
    })
  })
  server.keepAliveTimeout = 60_000
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      resolve({
        url: `http://127.0.0.1:${port}/device`,
        get asked() {
          return asked
        },
        close() {
          server.closeAllConnections()
          return new Promise((done) => server.close(() => done()))
        },
      })
    })
  })
}
