import { passwordLine } from '../registry/password-file.ts'
import type { Print } from './check.ts'

export interface PasswdCommand {
  readonly user: string
  /** The whole standard input: a command line can be read by everybody on the machine. */
  readonly password: () => Promise<string>
  readonly print: Print
  readonly complain: Print
}

/** `brokergate passwd`: one line for the file of an authorizer of kind `password`; exit code 0, or 1 and why not. */
export async function passwd({ user, password, print, complain }: PasswdCommand): Promise<number> {
  // The newline that a pipe or the return key puts at the end is not part of it.
  const line = await passwordLine(user, (await password()).replace(/\r?\n$/, ''))
  if (line.kind === 'line') print(line.text)
  else complain(line.message)
  return line.kind === 'line' ? 0 : 1
}
