import type { Target } from './target.ts'
import { AUTHORIZER_ANSWER, JWT, PARAMETERS, PASSWORD_FILE, SIGV4, TOKEN_SIGNATURE } from './targets/auth.ts'
import { CERTIFICATE, CONFIGURATION, CRL, DER, REGISTRY_YAML } from './targets/files.ts'
import { GATE_FROM_BROKER, GATE_FROM_DEVICE } from './targets/gate.ts'
import { HELLO, PROXY_HEADER } from './targets/listener.ts'
import { CONNACK, CONNECT, DISCONNECT, PACKET_CURSOR, PUBLISH_HEAD, SUBSCRIBE } from './targets/mqtt.ts'
import { ARN_PATTERN, POLICY_DOCUMENT, PROVISIONING_TEMPLATE } from './targets/policy.ts'
import { HTTP_HEAD, PUBLISH_REQUEST, WEB_SOCKET } from './targets/web.ts'

/** Every reader of ours that meets what others wrote. */
export const TARGETS: readonly Target[] = [
  HELLO,
  PROXY_HEADER,
  PACKET_CURSOR,
  CONNECT,
  PUBLISH_HEAD,
  SUBSCRIBE,
  CONNACK,
  DISCONNECT,
  GATE_FROM_DEVICE,
  GATE_FROM_BROKER,
  WEB_SOCKET,
  HTTP_HEAD,
  PUBLISH_REQUEST,
  SIGV4,
  PARAMETERS,
  TOKEN_SIGNATURE,
  JWT,
  AUTHORIZER_ANSWER,
  PASSWORD_FILE,
  POLICY_DOCUMENT,
  ARN_PATTERN,
  PROVISIONING_TEMPLATE,
  DER,
  CERTIFICATE,
  CRL,
  CONFIGURATION,
  REGISTRY_YAML,
]
