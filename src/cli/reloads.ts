import { isDeepStrictEqual } from 'node:util'
import type { ProcessLog } from '../control/log.ts'
import type { MetricsParts } from '../control/metrics.ts'
import { Reloads } from '../control/reload.ts'
import type { Material } from '../generation/material.ts'
import { type FileWatch, watchFiles } from '../registry/watch.ts'
import type { House } from './house.ts'
import { type ReadMaterial, readMaterial } from './material.ts'

export interface FollowOptions {
  readonly file: string
  readonly env: NodeJS.ProcessEnv
  readonly first: Extract<ReadMaterial, { readonly kind: 'read' }>
  /** When that was read, in milliseconds since 1970. */
  readonly readAt: number
  readonly house: House
  readonly log: ProcessLog
  readonly metrics: MetricsParts
}

/** An editor, a certificate manager or a mounted volume changes several files at once. */
const DEBOUNCE_MS = 250

export interface Following {
  readonly reloads: Reloads<Material>
  stop(): void
}

/** Reloads by SIGHUP and by changes of files, as long as it is not stopped. */
export function followReloads({ file, env, first, house, log, metrics, ...rest }: FollowOptions): Following {
  let files = first.files
  let readAt = rest.readAt
  let stopped = false
  let watch: FileWatch | null = null
  const reloads: Reloads<Material> = new Reloads<Material>({
    first: first.material,
    read(before) {
      readAt = Date.now()
      const read = readMaterial(file, env, before)
      const others = !isDeepStrictEqual(files, read.files)
      files = read.files
      // Not from within the watch's own call.
      if (others) setImmediate(followAnew)
      return read
    },
    target: house.target,
    inForce: ({ settings }) => setImmediate(() => follow(settings.reload.watch)),
    log,
    counted: metrics.settings,
  })
  const follow = (wanted: boolean): void => {
    if (stopped || wanted === (watch !== null)) return
    watch?.close()
    watch = wanted
      ? watchFiles({
          paths: () => files,
          readAt,
          debounceMs: DEBOUNCE_MS,
          onChange: () => void reloads.request('files'),
        })
      : null
  }
  const followAnew = () => {
    follow(false)
    follow(reloads.current.settings.reload.watch)
  }
  follow(first.material.settings.reload.watch)
  const onSignal = () => void reloads.request('signal')
  process.on('SIGHUP', onSignal)
  return {
    reloads,
    stop() {
      stopped = true
      process.off('SIGHUP', onSignal)
      watch?.close()
    },
  }
}
