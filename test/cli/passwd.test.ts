import { execFileSync } from 'node:child_process'
import test from 'ava'
import { derive } from '../../src/auth/password.ts'
import { passwd } from '../../src/cli/passwd.ts'
import { readPasswordFile } from '../../src/registry/password-file.ts'

async function run(user: string, password: string) {
  const [printed, complained]: [string[], string[]] = [[], []]
  const code = await passwd({
    user,
    password: async () => password,
    print: (line) => printed.push(line),
    complain: (line) => complained.push(line),
  })
  return { code, printed, complained }
}

test('what is printed is a line of a password file, for this password and with a salt of its own', async (t) => {
  const { code, printed } = await run('alice', 'sec:ret$\n')
  t.is(code, 0)
  const { users, issues } = readPasswordFile(printed.join('\n'))
  t.deepEqual(issues, [])
  const stored = users.get('alice')!
  t.true((await derive(stored, Buffer.from('sec:ret$'))).equals(stored.hash))
  t.false((await derive(stored, Buffer.from('sec:ret$\n'))).equals(stored.hash))
  t.notDeepEqual((await run('alice', 'sec:ret$\n')).printed, printed)
})

for (const [user, password] of [
  ['', 'secret'],
  ['a b', 'secret'],
  ['a:b', 'secret'],
  ['a?b', 'secret'],
  ['a\nb', 'secret'],
  ['a'.repeat(129), 'secret'],
  ['alice', ''],
  ['alice', '\n'],
  ['alice', 'x'.repeat(1_025)],
] as const) {
  test(`no line for ${JSON.stringify(user.slice(0, 10))} with a password of ${password.length} characters`, async (t) => {
    const { code, printed, complained } = await run(user, password)
    t.is(code, 1)
    t.deepEqual(printed, [])
    t.is(complained.length, 1)
  })
}

test('the command reads the password from standard input', (t) => {
  const main = new URL('../../src/main.ts', import.meta.url).pathname
  const line = execFileSync(process.execPath, [main, 'passwd', 'bob'], { input: 'secret\n' }).toString()
  t.is(readPasswordFile(line).users.size, 1)
})
