/** One statement of an AWS IoT policy document, checked. */
export interface Statement {
  readonly sid: string | null
  readonly effect: 'Allow' | 'Deny'
  readonly actions: readonly string[]
  readonly resources: readonly string[]
  /** operator → key → values */
  readonly conditions: ReadonlyMap<string, ReadonlyMap<string, readonly string[]>>
}

export interface PolicyDocument {
  readonly statements: readonly Statement[]
}

export interface PolicyIssue {
  /** Such as `Statement[0].Effect`; empty for the whole document. */
  readonly path: string
  readonly message: string
}

export type PolicyParse =
  | { readonly kind: 'document'; readonly document: PolicyDocument }
  | { readonly kind: 'invalid'; readonly issues: readonly PolicyIssue[] }
