/** One look at something that should stay as it is. */
export interface Sample {
  /** What it was taken of, such as a process: each has a level of its own, and all have the trend in common. */
  readonly life: string
  readonly at: number
  readonly value: number
}

export interface Slope {
  readonly perUnit: number
  /** Of `perUnit`; infinite where there is nothing to tell it from. */
  readonly standardError: number
  readonly samples: number
}

/** Least squares for one trend in several lives, each with a level of its own. */
export function slopeOf(samples: readonly Sample[]): Slope {
  const lives = [...Map.groupBy(samples, ({ life }) => life).values()].filter((life) => life.length > 1)
  const centered = lives.flatMap((life) => {
    const mean = (pick: (sample: Sample) => number) => life.reduce((sum, sample) => sum + pick(sample), 0) / life.length
    const [at, value] = [mean((sample) => sample.at), mean((sample) => sample.value)]
    return life.map((sample) => ({ x: sample.at - at, y: sample.value - value }))
  })
  const sxx = centered.reduce((sum, { x }) => sum + x * x, 0)
  const freedom = centered.length - lives.length - 1
  if (sxx === 0 || freedom < 1) {
    return { perUnit: 0, standardError: Number.POSITIVE_INFINITY, samples: centered.length }
  }
  const perUnit = centered.reduce((sum, { x, y }) => sum + x * y, 0) / sxx
  const rest = centered.reduce((sum, { x, y }) => sum + (y - perUnit * x) ** 2, 0)
  return { perUnit, standardError: Math.sqrt(rest / freedom / sxx), samples: centered.length }
}

/** The lowest of each life in each stretch of time: the troughs of a sawtooth are what must not rise. */
export function troughs(samples: readonly Sample[], stretch: number): readonly Sample[] {
  const lowest = new Map<string, Sample>()
  for (const sample of samples) {
    const key = `${sample.life}\n${Math.floor(sample.at / stretch)}`
    const known = lowest.get(key)
    if (known === undefined || sample.value < known.value) lowest.set(key, sample)
  }
  return [...lowest.values()]
}
