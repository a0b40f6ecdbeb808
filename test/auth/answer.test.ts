import test from 'ava'
import { readAnswer } from '../../src/auth/answer.ts'
import { leakText, PlantedSecrets } from '../support/secrets.ts'

const RULES = { lifetimes: 'refuse', principalId: null } as const
const STATEMENT = { Effect: 'Allow', Action: 'iot:*', Resource: '*' }
const secrets = new PlantedSecrets()
const S = secrets.plant('what the authorizer wrote')

/** A wrong policy document, and what is said of it. */
const WRONG: readonly (readonly [document: unknown, said: string])[] = [
  [{ Version: S, Statement: [STATEMENT] }, 'policyDocuments[0]: Version: must be "2012-10-17"'],
  [{ Version: '2012-10-17', Statement: [STATEMENT], [S]: 1 }, 'policyDocuments[0]: no such element'],
  [
    { Version: '2012-10-17', Statement: [{ ...STATEMENT, [S]: 1 }] },
    'policyDocuments[0]: Statement[0]: no such element',
  ],
  [
    { Version: '2012-10-17', Statement: [STATEMENT, { ...STATEMENT, Effect: S }] },
    'policyDocuments[0]: Statement[1].Effect: must be "Allow" or "Deny"',
  ],
  [
    { Version: '2012-10-17', Statement: { ...STATEMENT, Resource: [`arn:aws:iot:r:a:topic/\${${S}}`] } },
    'policyDocuments[0]: Statement.Resource[0]: is not the name of a variable',
  ],
  [
    { Version: '2012-10-17', Statement: [{ ...STATEMENT, Condition: { [S]: { 'iot:ClientId': 'a' } } }] },
    'policyDocuments[0]: Statement[0].Condition: no such operator',
  ],
  [`{ "Version": "2012-10-17", "${S}": 1, "${S}": 2 }`, 'policyDocuments[0]: stands twice in one object'],
  [`{ "Version": "${S}`, 'policyDocuments[0]: is not JSON'],
]

for (const [document, said] of WRONG) {
  test(`of a wrong policy document the place is told, and no word of its own: ${said}`, (t) => {
    const answer = { isAuthenticated: true, principalId: 'a', policyDocuments: [document] }
    const { message } = t.throws(() => readAnswer(answer, RULES))
    t.is(message, said)
    t.is(leakText(secrets.scan(message)), '')
  })
}
