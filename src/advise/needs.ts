import type { Asked, Needs } from './types.js'

/** The body of POST /containers/create or an answer of GET /containers/ID/json, as far as the rules look at it. */
export interface ContainerLike {
  HostConfig?: {
    Isolation?: string; Privileged?: boolean; CapAdd?: string[] | null; PidMode?: string; IpcMode?: string; UTSMode?: string; CgroupnsMode?: string; NetworkMode?: string; Runtime?: string
    SecurityOpt?: string[] | null; Devices?: { PathOnHost: string }[] | null; DeviceCgroupRules?: string[] | null; Binds?: string[] | null
    Mounts?: { Type?: string; Source?: string; Target?: string; BindOptions?: { Propagation?: string } }[] | null; PortBindings?: Record<string, unknown> | null
  }
}

/** Sockets that make whoever has them root on the host. */
const ENGINE_SOCKET = /(^|\/)(docker|podman|hull|containerd|crio)\.sock$/
/** Mount options, or a propagation, with which a mount appears on the host; a VM refuses it. */
export const isShared = (options: string): boolean => /(^|,)r?shared(,|$)/.test(options)
export const capabilityName = (name: string) => name.toUpperCase().replace(/^CAP_/, '')

/** A workload that asks for nothing. */
export const noNeeds = (name: string, asked: Asked): Needs => ({
  name, ...asked, now: '', privileged: false, capabilities: [], namespaces: [], devices: [], processOnly: [], binds: [], engineSockets: [], volumes: [], ports: 0, unread: [],
})

/** An isolation as it is written (engine/policy.ts); '' for the daemon's default, and for what is none. */
export function isolationNow(text: string | null | undefined): string {
  const word = (text ?? '').toLowerCase()
  return word === 'hyperv' ? 'vm' : word === 'process' || word === 'vm' ? word : ''
}

/** Puts a mount where it belongs: a path is a bind mount, a name a volume. */
export function addMount(needs: Needs, source: string): void {
  if (!/^[./~]/.test(source)) {
    needs.volumes.push(source)
    return
  }
  needs.binds.push(source)
  if (ENGINE_SOCKET.test(source)) needs.engineSockets.push(source)
}

/** Modes that a VM refuses (engine/namespaces.ts), as flags. */
export function addMode(needs: Needs, flag: '--pid' | '--ipc' | '--uts' | '--cgroupns' | '--network', given: string | null | undefined): void {
  const mode = given ?? ''
  const joins = mode.startsWith('container:') || mode.startsWith('service:')
  if (mode === 'host' || joins) needs.namespaces.push(`${flag} ${mode}`)
}

/** A seccomp profile of one's own is refused in a VM; that of everybody or none is not. */
export function addSecurityOption(needs: Needs, option: string): void {
  const match = /^seccomp[=:](.*)$/s.exec(option)
  if (match && match[1] !== 'unconfined' && match[1] !== 'builtin') needs.processOnly.push('a seccomp profile of its own')
}

/** What a create body, or a container that is there, needs. */
export function needsOfContainer(name: string, body: ContainerLike, asked: Asked, defaultRuntime = ''): Needs {
  const host = body.HostConfig ?? {}
  const needs = noNeeds(name, asked)
  needs.now = isolationNow(host.Isolation)
  needs.privileged = host.Privileged === true
  needs.capabilities = (host.CapAdd ?? []).map(capabilityName)
  addMode(needs, '--pid', host.PidMode ?? '')
  addMode(needs, '--ipc', host.IpcMode ?? '')
  addMode(needs, '--uts', host.UTSMode ?? '')
  addMode(needs, '--cgroupns', host.CgroupnsMode ?? '')
  addMode(needs, '--network', host.NetworkMode ?? '')
  needs.devices = [...(host.Devices ?? []).map(({ PathOnHost }) => `--device ${PathOnHost}`), ...(host.DeviceCgroupRules ?? []).map((rule) => `--device-cgroup-rule '${rule}'`)]
  if (host.Runtime && host.Runtime !== 'crun' && host.Runtime !== defaultRuntime) needs.processOnly.push(`--runtime ${host.Runtime}`)
  for (const option of host.SecurityOpt ?? []) addSecurityOption(needs, option)
  for (const bind of host.Binds ?? []) {
    const [source = '', , mode = ''] = bind.split(':')
    addMount(needs, source)
    if (isShared(mode)) needs.processOnly.push(`the mount ${bind}`)
  }
  for (const mount of host.Mounts ?? []) {
    if ((mount.Type === 'bind' || mount.Type === 'volume') && mount.Source) addMount(needs, mount.Source)
    if (isShared(mount.BindOptions?.Propagation ?? '')) needs.processOnly.push(`the mount ${mount.Target ?? ''}`)
  }
  needs.ports = Object.keys(host.PortBindings ?? {}).length
  return needs
}
