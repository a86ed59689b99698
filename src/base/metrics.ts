/** One line of a metric: its labels and value. `suffix`: '_total', '_bucket', … */
export interface Sample {
  suffix: string
  labels: Readonly<Record<string, string>>
  value: number
}

/** What OpenMetrics calls a metric family. */
export interface MetricFamily {
  name: string
  type: 'counter' | 'gauge' | 'histogram' | 'info'
  help: string
  samples: Sample[]
}

/** A value, or one for each set of labels, that stands now. */
export function gauge(name: string, help: string, values: readonly (readonly [labels: Readonly<Record<string, string>>, value: number])[]): MetricFamily {
  return { name, type: 'gauge', help, samples: values.map(([labels, value]) => ({ suffix: '', labels, value })) }
}

/** A number that only rises. */
export function counter(name: string, help: string, values: readonly (readonly [labels: Readonly<Record<string, string>>, value: number])[]): MetricFamily {
  return { name, type: 'counter', help, samples: values.map(([labels, value]) => ({ suffix: '_total', labels, value })) }
}

interface Series {
  labels: Readonly<Record<string, string>>
  counts: number[]
  sum: number
}

/** Durations in seconds, counted in buckets for each set of labels. The sets must be few: each lives as long as the daemon. */
export class Histogram {
  readonly #series = new Map<string, Series>()

  constructor(
    readonly name: string,
    readonly help: string,
    /** Upper bounds, rising; one without a bound follows. */
    readonly bounds: readonly number[],
  ) {}

  observe(labels: Readonly<Record<string, string>>, seconds: number): void {
    const key = JSON.stringify(labels)
    let series = this.#series.get(key)
    if (!series) this.#series.set(key, (series = { labels, counts: new Array<number>(this.bounds.length + 1).fill(0), sum: 0 }))
    const bucket = this.bounds.findIndex((bound) => seconds <= bound)
    series.counts[bucket < 0 ? this.bounds.length : bucket]!++
    series.sum += seconds
  }

  family(): MetricFamily {
    const samples: Sample[] = []
    for (const { labels, counts, sum } of this.#series.values()) {
      let total = 0
      counts.forEach((count, index) => {
        total += count
        samples.push({ suffix: '_bucket', labels: { ...labels, le: index < this.bounds.length ? String(this.bounds[index]) : '+Inf' }, value: total })
      })
      samples.push({ suffix: '_sum', labels, value: sum }, { suffix: '_count', labels, value: total })
    }
    return { name: this.name, type: 'histogram', help: this.help, samples }
  }
}

const escaped = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"')

function line(family: MetricFamily, sample: Sample): string {
  const labels = Object.entries(sample.labels).map(([name, value]) => `${name}="${escaped(value)}"`)
  return `${family.name}${sample.suffix}${labels.length > 0 ? `{${labels.join(',')}}` : ''} ${sample.value}\n`
}

/** The content type of {@link openMetrics}. */
export const openMetricsType = 'application/openmetrics-text; version=1.0.0; charset=utf-8'

/** OpenMetrics 1.0 text (https://github.com/OpenObservability/OpenMetrics), which Prometheus reads. */
export function openMetrics(families: readonly MetricFamily[]): string {
  const parts = families.map((family) => `# TYPE ${family.name} ${family.type}\n# HELP ${family.name} ${escaped(family.help)}\n${family.samples.map((sample) => line(family, sample)).join('')}`)
  return `${parts.join('')}# EOF\n`
}
