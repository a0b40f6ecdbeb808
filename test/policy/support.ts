import { type PolicyDocument, parsePolicyDocument } from '../../src/policy/document.ts'
import type { ArnHead, Variables } from '../../src/policy/permit.ts'

export const HEAD: ArnHead = { partition: 'aws', region: 'us-east-1', accountId: '123456789012' }
export const ARN = 'arn:aws:iot:us-east-1:123456789012:'

/** @throws when the statements are no document, with what is wrong */
export function documentOf(...statements: readonly unknown[]): PolicyDocument {
  const parse = parsePolicyDocument({ Version: '2012-10-17', Statement: statements })
  if (parse.kind === 'invalid') throw new Error(JSON.stringify(parse.issues))
  return parse.document
}

export function values(given: Readonly<Record<string, readonly string[] | string>>): Variables {
  return {
    lookup(name) {
      if (!Object.hasOwn(given, name)) return null
      const value = given[name]!
      return typeof value === 'string' ? [value] : value
    },
  }
}
