/**
 * `ws` under a name of its own. Bun puts its own implementation in place of an import of `ws`, which lets through what
 * the real one refuses.
 */
declare module 'websocket' {
  export { type RawData, WebSocket, WebSocketServer } from 'ws'
}
