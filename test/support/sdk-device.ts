// The AWS IoT Device SDK v2 as an application uses it, in a process of its own: its native part keeps threads.
// Argument: JSON of `SdkWay`. Connects, publishes once at QoS 1, and prints one JSON line.
import { auth, iot, mqtt, mqtt5 } from 'aws-iot-device-sdk-v2'

export interface SdkWay {
  readonly builder: 'mtls' | 'sigv4' | 'custom' | 'custom-websocket'
  readonly version: 4 | 5
  readonly port: number
  readonly clientId: string
  readonly topic: string
  readonly payload: string
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly region: string
  readonly accessKey: { readonly id: string; readonly secret: string; readonly token?: string }
  readonly custom: {
    readonly authorizerName: string
    readonly username: string
    readonly password: string
    readonly tokenKeyName: string
    readonly tokenValue: string
    readonly tokenSignature: string
  }
}

const HOST = 'localhost'

async function over5(way: SdkWay): Promise<void> {
  const { accessKey, custom } = way
  const { AwsIotMqtt5ClientConfigBuilder: builders } = iot
  const builder =
    way.builder === 'mtls'
      ? builders.newDirectMqttBuilderWithMtlsFromPath(HOST, way.cert, way.key)
      : way.builder === 'sigv4'
        ? builders.newWebsocketMqttBuilderWithSigv4Auth(HOST, {
            region: way.region,
            credentialsProvider: auth.AwsCredentialsProvider.newStatic(accessKey.id, accessKey.secret, accessKey.token),
          })
        : way.builder === 'custom'
          ? builders.newDirectMqttBuilderWithCustomAuth(HOST, { ...custom, password: Buffer.from(custom.password) })
          : builders.newWebsocketMqttBuilderWithCustomAuth(HOST, { ...custom, password: Buffer.from(custom.password) })
  builder.withPort(way.port)
  builder.withCertificateAuthorityFromPath(undefined, way.ca)
  builder.withConnectProperties({ clientId: way.clientId, keepAliveIntervalSeconds: 1_200 })
  const client = new mqtt5.Mqtt5Client(builder.build())
  await new Promise<void>((resolve, reject) => {
    client.on('connectionSuccess', () => resolve())
    client.on('connectionFailure', ({ error, connack }) =>
      reject(new Error(`${String(error)} ${connack === undefined ? '' : `CONNACK ${connack.reasonCode}`}`)),
    )
    client.on('error', reject)
    client.start()
  })
  const puback = await client.publish({ topicName: way.topic, qos: mqtt5.QoS.AtLeastOnce, payload: way.payload })
  if (puback !== undefined && 'reasonCode' in puback && puback.reasonCode >= 0x80) {
    throw new Error(`PUBACK ${puback.reasonCode}`)
  }
  await new Promise<void>((resolve) => {
    client.on('stopped', () => resolve())
    client.stop()
  })
}

async function over4(way: SdkWay): Promise<void> {
  const { accessKey, custom } = way
  const { AwsIotMqttConnectionConfigBuilder: builders } = iot
  const builder =
    way.builder === 'mtls'
      ? builders.new_mtls_builder_from_path(way.cert, way.key)
      : way.builder === 'sigv4'
        ? builders
            .new_builder_for_websocket()
            .with_credentials(way.region, accessKey.id, accessKey.secret, accessKey.token)
        : builders
            .new_default_builder()
            .with_custom_authorizer(
              custom.username,
              custom.authorizerName,
              custom.tokenSignature,
              custom.password,
              custom.tokenKeyName,
              custom.tokenValue,
            )
  builder
    .with_certificate_authority_from_path(undefined, way.ca)
    .with_endpoint(HOST)
    .with_port(way.port)
    .with_client_id(way.clientId)
    .with_clean_session(true)
  const connection = new mqtt.MqttClient().new_connection(builder.build())
  connection.on('error', () => {})
  await connection.connect()
  await connection.publish(way.topic, way.payload, mqtt.QoS.AtLeastOnce)
  await connection.disconnect()
}

const way = JSON.parse(process.argv[2]!) as SdkWay
const timer = setTimeout(() => end({ ok: false, error: 'no end within 20 s' }), 20_000)
function end(result: { ok: boolean; error?: string }): void {
  clearTimeout(timer)
  process.stdout.write(`${JSON.stringify(result)}\n`, () => process.exit(0))
}
;(way.version === 5 ? over5(way) : over4(way)).then(
  () => end({ ok: true }),
  (error: unknown) => end({ ok: false, error: String(error) }),
)
