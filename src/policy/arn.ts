/** An Amazon resource name, `arn:<partition>:<service>:<region>:<accountId>:<resource>`; the resource may hold colons. */
export interface Arn {
  readonly partition: string
  readonly service: string
  readonly region: string
  readonly accountId: string
  readonly resource: string
}

/** Only where no variable stands in the head: `${…}` has colons of its own. Null when it is not of this form. */
export function splitArn(text: string): Arn | null {
  const match = /^arn:([^:${}]*):([^:${}]*):([^:${}]*):([^:${}]*):([\s\S]+)$/.exec(text)
  if (match === null) return null
  const [, partition, service, region, accountId, resource] = match
  return { partition: partition!, service: service!, region: region!, accountId: accountId!, resource: resource! }
}

/** `service:Name`, where the name may hold `*` and `?`, or `*` alone: IAM user guide, "Action". */
export const ACTION = /^(?:\*|[a-z0-9-]+:[a-z0-9*?]+)$/i
