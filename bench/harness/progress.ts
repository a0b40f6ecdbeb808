export interface Progress {
  show(text: string): void
  end(): void
}

/** One line on a terminal that is written over; nothing where nobody looks on. */
export function createProgress(title: string, stream: NodeJS.WriteStream = process.stderr): Progress {
  if (!stream.isTTY) return { show() {}, end() {} }
  return {
    show(text) {
      const line = `${title} · ${text}`.slice(0, Math.max(20, (stream.columns ?? 80) - 1))
      stream.write(`\r\u001b[K${line}`)
    },
    end: () => void stream.write('\r\u001b[K'),
  }
}
