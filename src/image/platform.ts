import { badRequest } from '../base/errors.js'

/** An OCI platform (image-spec, image-index.md, "platform"). */
export interface Platform {
  os: string
  architecture: string
  variant?: string
}

const architectures: Record<string, [architecture: string, variant?: string]> = {
  x86_64: ['amd64'], 'x86-64': ['amd64'], x64: ['amd64'], aarch64: ['arm64'], armhf: ['arm', 'v7'], armel: ['arm', 'v6'], i386: ['386'], ia32: ['386'], ppc64: ['ppc64le'],
}

/** One spelling for each platform (containerd platforms, "Normalize"): x86_64 is amd64; arm64's v8 and amd64's v1 go without saying; arm is v7. */
export function normalisePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase()
  const written = platform.architecture.toLowerCase()
  const [architecture, implied] = Object.hasOwn(architectures, written) ? architectures[written]! : [written]
  let variant = platform.variant?.toLowerCase() || implied || ''
  if (/^[0-9]+$/.test(variant)) variant = `v${variant}`
  if ((architecture === 'arm64' && variant === 'v8') || (architecture === 'amd64' && variant === 'v1')) variant = ''
  if (architecture === 'arm' && variant === '') variant = 'v7'
  return { os, architecture, ...(variant === '' ? {} : { variant }) }
}

/** This machine. */
export function hostPlatform(): Platform {
  return normalisePlatform({ os: 'linux', architecture: process.arch })
}

const part = /^[A-Za-z0-9_.-]{1,64}$/

/** `--platform`: 'linux/arm64/v8', 'linux/amd64', 'arm64' or 'linux'. 400 when it is none of these. */
export function parsePlatform(text: string): Platform {
  const parts = text.split('/')
  if (parts.length > 3 || !parts.every((p) => part.test(p))) throw badRequest(`"${text.slice(0, 100)}" is an invalid component of "${text.slice(0, 100)}": platform specifier component must match "^[A-Za-z0-9_-]+$": invalid argument`)
  const host = hostPlatform()
  if (parts.length === 1) {
    if (parts[0]!.toLowerCase() === 'linux') return host
    return normalisePlatform({ os: 'linux', architecture: parts[0]! })
  }
  const [os, architecture, variant] = parts
  return normalisePlatform({ os: os!, architecture: architecture!, ...(variant === undefined ? {} : { variant }) })
}

/** 'linux/arm/v7' */
export function formatPlatform(platform: Platform): string {
  return [platform.os, platform.architecture, ...(platform.variant ? [platform.variant] : [])].join('/')
}

/** How well `offered` serves `wanted`: 0 exactly, larger is worse, undefined not at all. 32-bit ARM runs older variants. */
function distance(wanted: Platform, offered: Platform): number | undefined {
  if (wanted.os !== offered.os || wanted.architecture !== offered.architecture) return undefined
  if (wanted.variant === offered.variant) return 0
  if (wanted.architecture !== 'arm') return undefined
  const want = Number(wanted.variant?.slice(1))
  const have = Number(offered.variant?.slice(1))
  return have < want ? want - have : undefined
}

/** The entry of a multi-architecture index that serves `wanted` best; the first among equals, as Docker. */
export function choosePlatform<T extends { platform?: Platform | undefined }>(entries: readonly T[], wanted: Platform): T | undefined {
  let best: T | undefined
  let bestDistance = Infinity
  for (const entry of entries) {
    if (entry.platform === undefined) continue
    const d = distance(normalisePlatform(wanted), normalisePlatform(entry.platform))
    if (d !== undefined && d < bestDistance) {
      best = entry
      bestDistance = d
    }
  }
  return best
}
