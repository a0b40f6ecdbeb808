import { splitArn } from '../policy/arn.ts'
import type { PolicyDocument } from '../policy/document.ts'
import type { ArnHead } from '../policy/permit.ts'
import { compileStatement } from '../policy/statement.ts'

/** One line for each resource that starts with another partition, region or account than every domain has. */
export function headWarnings(
  registry: string,
  policies: ReadonlyMap<string, PolicyDocument>,
  heads: readonly ArnHead[],
): readonly string[] {
  // A registry that no domain uses is compared with nothing.
  if (heads.length === 0) return []
  const warnings: string[] = []
  for (const [name, { statements }] of policies) {
    const resources = statements.flatMap((statement) => compileStatement(statement).resources)
    const never = new Set(
      resources
        .filter(({ text }) => text === '*' || splitArn(text)?.service === 'iot')
        .filter((resource) => !heads.some((head) => resource.inScope(head)))
        .map(({ text }) => text),
    )
    for (const text of never) {
      const known = [
        ...new Set(heads.map(({ partition, region, accountId }) => `${partition}:iot:${region}:${accountId}`)),
      ]
      warnings.push(
        `registry ${registry}: policy ${name}: ${text} matches nothing, the settings \`aws\` say arn:${known.join(', arn:')}`,
      )
    }
  }
  return warnings
}
