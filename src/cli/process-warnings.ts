/** What this process is and need not be. Binding low ports is a matter of the listener's `as`, not of rights. */
export function processWarnings(user: number | null = process.geteuid?.() ?? null): readonly string[] {
  return user === 0 ? ['runs as root, which it has no need of: start it as a user of its own'] : []
}
