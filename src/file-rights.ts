import { accessSync, constants, lstatSync, realpathSync, type Stats, statSync } from 'node:fs'
import { dirname } from 'node:path'

// Who else on this machine may read or change a file that counts. What the group may do is the operator's own choice:
// that is how Kubernetes (fsGroup) and packages of certificates give keys to a process without root.

const OTHERS_READ = 0o004
const OTHERS_WRITE = 0o002
/** In a folder with this bit a file is removed by its owner alone: /tmp, and the root of a Secret in Kubernetes. */
const STICKY = 0o1000
const ROOT = 0
/** Whoever has no number in this user namespace (/proc/sys/kernel/overflowuid). */
const UNMAPPED = 65_534

/**
 * What is too loose about a file or folder, each as the end of a sentence that begins with it; nothing for what is not
 * there. Links are followed: the rights that count are those of what they lead to. A file can be replaced by whoever may
 * write to its folder; of a folder only its own rights are looked at.
 *
 * @param holds a secret is not to be read by others, either; settings are not to be changed by them
 */
export function looseRights(file: string, holds: 'secret' | 'settings'): readonly string[] {
  const facts = statSync(file, { throwIfNoEntry: false })
  // Windows keeps rights elsewhere.
  if (facts === undefined || process.platform === 'win32') return []
  const loose: string[] = []
  if (holds === 'secret' && !facts.isDirectory() && (facts.mode & OTHERS_READ) !== 0) {
    loose.push('may be read by everybody on this machine')
  }
  if ((facts.mode & OTHERS_WRITE) !== 0 && !isKept(file, facts))
    loose.push('may be changed by everybody on this machine')
  const { uid } = facts
  const own = process.geteuid?.() ?? ROOT
  if (holds === 'secret' && uid !== own && uid !== ROOT && uid !== UNMAPPED) {
    loose.push(`belongs to the user ${uid}, who is neither root nor ${own}, which this process is`)
  }
  const folder = (facts.isDirectory() ? [] : foldersOf(file)).find((one) => isReplaceable(one))
  if (folder !== undefined) loose.push(`may be replaced by everybody on this machine: ${folder} may be written`)
  return loose
}

/** The folder in which the name stands, and that of what it leads to. */
function foldersOf(file: string): readonly string[] {
  const folder = dirname(file)
  return lstatSync(file).isSymbolicLink() ? [folder, dirname(realpathSync(file))] : [folder]
}

function isReplaceable(folder: string): boolean {
  const facts = statSync(folder, { throwIfNoEntry: false })
  return facts !== undefined && (facts.mode & OTHERS_WRITE) !== 0 && !isKept(folder, facts)
}

/** Against its mode: a mount that is read-only, and a folder in which everybody may only add. */
function isKept(path: string, facts: Stats): boolean {
  if (facts.isDirectory() && (facts.mode & STICKY) !== 0) return true
  try {
    accessSync(path, constants.W_OK)
    return false
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EROFS'
  }
}
