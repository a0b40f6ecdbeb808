/** Every built-in plugin, listed by hand: what is not here does not exist. */
import { backend } from './auth/backend.ts'
import { x509 } from './auth/x509.ts'
import { embedded } from './backend/embedded.ts'
import { tcp } from './backend/tcp.ts'
import { ws } from './backend/ws.ts'

export const AUTHENTICATORS = { x509, backend } as const

/** `tls` is `tcp` with a `tls` option; both dial alike. */
export const BACKENDS = { tcp, tls: tcp, ws, embedded } as const
