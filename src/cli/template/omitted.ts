/** What the API leaves out where it is empty, by the place of it: '*' is each item of a list or map. */
type Omitted = [path: string[], fields: Record<string, unknown>][]

const config: Omitted = [
  [['Config'], { ExposedPorts: null, Volumes: null, OnBuild: null, Healthcheck: null, ArgsEscaped: false, NetworkDisabled: false, MacAddress: '', StopSignal: '', StopTimeout: null, Shell: null }],
  [['Config', 'Healthcheck'], { Test: null, Interval: 0, Timeout: 0, StartPeriod: 0, StartInterval: 0, Retries: 0 }],
]

/** By kind of object, as in `hull inspect`. */
const omitted: Record<string, Omitted> = {
  container: [
    ...config,
    [[], { SizeRw: null, SizeRootFs: null, Mounts: null }],
    [['State'], { Health: null }],
    [['HostConfig'], { Annotations: null, Tmpfs: null, Mounts: null, Init: null, StorageOpt: null, Sysctls: null, Isolation: '' }],
    [['HostConfig', 'Mounts', '*'], { Source: '', ReadOnly: false, Consistency: '', BindOptions: null, VolumeOptions: null, TmpfsOptions: null }],
    [['Mounts', '*'], { Name: '', Driver: '' }],
    [['NetworkSettings', 'Networks', '*', 'IPAMConfig'], { IPv4Address: '', IPv6Address: '', LinkLocalIPs: null }],
  ],
  image: [...config, [[], { Variant: '', Created: '' }]],
}

function fill(value: unknown, path: readonly string[], fields: Record<string, unknown>): void {
  if (typeof value !== 'object' || value === null) return
  const [step, ...rest] = path
  if (step === '*') for (const item of Object.values(value)) fill(item, rest, fields)
  else if (step !== undefined) fill((value as Record<string, unknown>)[step], rest, fields)
  else {
    // Not enumerable: {{json .}} shows what the daemon sent, as the docker CLI leaves the same fields out.
    for (const [name, empty] of Object.entries(fields)) if (!Object.hasOwn(value, name)) Object.defineProperty(value, name, { value: empty })
  }
}

/**
 * Gives an object of the API the fields that it lacks because they are empty, for templates alone: the docker CLI evaluates on a struct,
 * which has them all, and `{{if .State.Health}}` is no error there. Docker's struct says ID where the API says Id.
 */
export function withOmitted(kind: string, value: unknown): unknown {
  for (const [path, fields] of omitted[kind] ?? []) fill(value, path, fields)
  if (typeof value === 'object' && value !== null && 'Id' in value) fill(value, [], { ID: value.Id })
  return value
}
