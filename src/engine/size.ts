const UNIT: Record<string, number> = { '': 0, k: 1, m: 2, g: 3, t: 4, p: 5 }

/** Bytes as docker/go-units reads them, FromHumanSize (base 1000) or RAMInBytes (1024): '10m', '1.5GB', '64MiB'. Undefined: no size. */
export function bytesOf(text: string, base: 1000 | 1024): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text.trim())
  if (!match) return undefined
  return Math.floor(Number(match[1]) * base ** UNIT[match[2]!.toLowerCase()]!)
}
