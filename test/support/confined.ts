import { spawnSync } from 'node:child_process'
import { statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

// A process without rights, as containers run it: user nobody, no capabilities, no new privileges, every file system
// read-only but for the folders named, and a seccomp filter. By bubblewrap and setpriv of util-linux.

/** What the default seccomp profiles of container engines keep from processes without capabilities; numbers of x86-64. */
// biome-ignore format: a table is read down its columns
export const DENIED_CALLS = {
  acct: 163, add_key: 248, bpf: 321, chroot: 161, clock_adjtime: 305, clock_settime: 227, create_module: 174,
  delete_module: 176, fanotify_init: 300, finit_module: 313, fsconfig: 431, fsmount: 432, fsopen: 430, fspick: 433,
  get_kernel_syms: 177, get_mempolicy: 239, init_module: 175, io_uring_enter: 426, io_uring_register: 427,
  io_uring_setup: 425, ioperm: 173, iopl: 172, kcmp: 312, kexec_file_load: 320, kexec_load: 246, keyctl: 250,
  lookup_dcookie: 212, mbind: 237, mount: 165, mount_setattr: 442, move_mount: 429, move_pages: 279,
  name_to_handle_at: 303, nfsservctl: 180, open_by_handle_at: 304, open_tree: 428, perf_event_open: 298,
  pidfd_getfd: 438, pivot_root: 155, process_madvise: 440, process_vm_readv: 310, process_vm_writev: 311, ptrace: 101,
  query_module: 178, quotactl: 179, quotactl_fd: 443, reboot: 169, request_key: 249, set_mempolicy: 238, setns: 308,
  settimeofday: 164, swapoff: 168, swapon: 167, _sysctl: 156, sysfs: 139, syslog: 103, umount2: 166, unshare: 272,
  uselib: 134, userfaultfd: 323, ustat: 136, vhangup: 153,
} as const

const CLONE = 56
const CLONE3 = 435
/** CLONE_NEWNS, …UTS, …IPC, …USER, …PID, …NET and …CGROUP: a namespace of one's own. */
const CLONE_NEW = 0x7e02_0000

const AUDIT_ARCH_X86_64 = 0xc000_003e
/** Calls of the x32 ABI are another table of numbers. */
const X32_BIT = 0x4000_0000
const ALLOW = 0x7fff_0000
const errno = (number: number): number => 0x0005_0000 | number
const [EPERM, ENOSYS] = [1, 38]
/** In `struct seccomp_data`: seccomp(2). Bytes. */
const [AT_NUMBER, AT_ARCH, AT_FIRST_ARGUMENT] = [0, 4, 16]

type Step = readonly [code: number, jumpIf: number, jumpElse: number, value: number]
const load = (at: number): Step => [0x20, 0, 0, at]
const answer = (value: number): Step => [0x06, 0, 0, value]
const equal = (value: number, jumpIf: number, jumpElse: number): Step => [0x15, jumpIf, jumpElse, value]

/** The filter as a program for the kernel: an array of `struct sock_filter`. */
function filterProgram(): Buffer {
  const steps: Step[] = [
    load(AT_ARCH),
    equal(AUDIT_ARCH_X86_64, 1, 0),
    answer(errno(EPERM)),
    load(AT_NUMBER),
    [0x35, 0, 1, X32_BIT],
    answer(errno(EPERM)),
    // Its flags lie in memory, where no filter can look: as if it did not exist, so that clone is used.
    equal(CLONE3, 0, 1),
    answer(errno(ENOSYS)),
    ...Object.values(DENIED_CALLS).flatMap((number): Step[] => [equal(number, 0, 1), answer(errno(EPERM))]),
    equal(CLONE, 0, 3),
    load(AT_FIRST_ARGUMENT),
    [0x45, 0, 1, CLONE_NEW],
    answer(errno(EPERM)),
    answer(ALLOW),
  ]
  const program = Buffer.alloc(steps.length * 8)
  for (const [index, [code, jumpIf, jumpElse, value]] of steps.entries()) {
    program.writeUInt16LE(code, index * 8)
    program.writeUInt8(jumpIf, index * 8 + 2)
    program.writeUInt8(jumpElse, index * 8 + 3)
    program.writeUInt32LE(value, index * 8 + 4)
  }
  return program
}

export const NOBODY = 65_534

/** Why processes cannot be confined here; null where they can. */
export function whyNotConfined(): string | null {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'the filter is for Linux on x86-64'
  if (process.geteuid?.() !== 0) return 'only root can become nobody'
  const tried = spawnSync('bwrap', ['--ro-bind', '/', '/', '--proc', '/proc', '--dev', '/dev', 'true'])
  return tried.status === 0
    ? null
    : `bubblewrap cannot make a mount here: ${tried.error?.message ?? String(tried.stderr)}`
}

/** Where the runtime lies in a folder of root's own, the file alone is put in the place of that folder. */
function reachable(file: string): readonly string[] {
  const folders: string[] = []
  for (let folder = dirname(file); folder !== '/'; folder = dirname(folder)) folders.unshift(folder)
  const closed = folders.findIndex((folder) => (statSync(folder).mode & 0o001) === 0)
  if (closed < 0) return []
  const inside = folders.slice(closed + 1).flatMap((folder) => ['--perms', '0755', '--dir', folder])
  return ['--perms', '0755', '--tmpfs', folders[closed]!, ...inside, '--ro-bind', file, file]
}

/**
 * Words to put before a command: it is then confined. Signals go to the process itself, not to the words.
 * @param dir for the filter's file, which a shell opens as descriptor 9
 */
export function confined(dir: string, writable: readonly string[]): string[] {
  const file = join(dir, 'filter.bpf')
  writeFileSync(file, filterProgram())
  const bwrap = [
    ...['bwrap', '--die-with-parent', '--ro-bind', '/', '/', '--proc', '/proc', '--dev', '/dev'],
    ...reachable(process.execPath),
    ...writable.flatMap((folder) => ['--bind', folder, folder]),
    ...['CAP_SETUID', 'CAP_SETGID', 'CAP_SETPCAP'].flatMap((capability) => ['--cap-add', capability]),
    ...['--seccomp', '9', 'setpriv', '--reuid', String(NOBODY), '--regid', String(NOBODY), '--clear-groups'],
    ...['--no-new-privs', '--bounding-set=-all', '--inh-caps=-all'],
  ]
  return ['sh', '-c', `exec "$@" 9<"${file}"`, 'sh', ...bwrap]
}
