/** Every built-in plugin, listed by hand: what is not here does not exist. */
import { createAuthorizers } from './auth/authorizers.ts'
import { backend } from './auth/backend.ts'
import { certificateCallback } from './auth/certificate-callback.ts'
import { custom, customX509, tokenKeyNames } from './auth/custom.ts'
import { REST_SERVICES, sigv4 } from './auth/sigv4.ts'
import { x509 } from './auth/x509.ts'
import { embedded } from './backend/embedded.ts'
import { poolCredentials, publisher } from './backend/publisher.ts'
import { tcp } from './backend/tcp.ts'
import { ws } from './backend/ws.ts'
import { allSinks, brokerSink, logSink, moduleSink, registeredEvent } from './events.ts'

export const AUTHENTICATORS = { x509, backend, custom, customX509, sigv4 } as const

/** Kinds of authorizers are those of the registry: webhook, jwt, password, module. */
export const AUTHORIZERS = { create: createAuthorizers, certificateCallback, tokenKeyNames } as const

/** Service names of Signature Version 4, by endpoint type. */
export const SIGNED_SERVICES = REST_SERVICES

/** `tls` is `tcp` with a `tls` option; both dial alike. */
export const BACKENDS = { tcp, tls: tcp, ws, embedded } as const

/** What HTTPS publishes go through, in front of any backend. */
export const PUBLISHERS = { pool: publisher, credentials: poolCredentials } as const

/** Kinds of event sinks, and what joins them. */
export const EVENT_SINKS = {
  broker: brokerSink,
  log: logSink,
  module: moduleSink,
  all: allSinks,
  registered: registeredEvent,
} as const
