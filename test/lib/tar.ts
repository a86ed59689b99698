/** One member of a tar archive. Nothing is checked: tests write hostile ones with it. */
export interface TarEntry {
  name: string
  type?: 'file' | 'dir' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'
  content?: string | Uint8Array
  /** Target of a link. */
  link?: string
  mode?: number
  uid?: number
  gid?: number
  /** seconds */
  mtime?: number
  major?: number
  minor?: number
  /** Extended attributes, as SCHILY.xattr records of a pax header. */
  xattrs?: Record<string, Uint8Array>
  /** Further pax records. */
  pax?: Record<string, string | Uint8Array>
  /** The size that the header says, when it is to lie. */
  size?: number
}

const typeFlags = { file: '0', hardlink: '1', symlink: '2', char: '3', block: '4', dir: '5', fifo: '6' } as const

/** Octal, or GNU base-256 where octal does not fit. */
function number(value: number, width: number): Buffer {
  const octal = value.toString(8)
  if (octal.length < width) return Buffer.from(octal.padStart(width - 1, '0') + '\0', 'latin1')
  const out = Buffer.alloc(width)
  out.writeBigUInt64BE(BigInt(value), width - 8)
  out[0]! |= 0x80
  return out
}

function header(name: Buffer, flag: string, entry: TarEntry, size: number): Buffer {
  const block = Buffer.alloc(512)
  name.copy(block, 0, 0, 100)
  number(entry.mode ?? (entry.type === 'dir' ? 0o755 : 0o644), 8).copy(block, 100)
  number(entry.uid ?? 0, 8).copy(block, 108)
  number(entry.gid ?? 0, 8).copy(block, 116)
  number(size, 12).copy(block, 124)
  number(entry.mtime ?? 1_700_000_000, 12).copy(block, 136)
  block.write('        ', 148, 'latin1')
  block.write(flag, 156, 'latin1')
  Buffer.from(entry.link ?? '', 'utf8').copy(block, 157, 0, 100)
  block.write('ustar\x0000', 257, 'latin1')
  number(entry.major ?? 0, 8).copy(block, 329)
  number(entry.minor ?? 0, 8).copy(block, 337)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(sum.toString(8).padStart(6, '0') + '\0 ', 148, 'latin1')
  return block
}

function padded(content: Uint8Array): Buffer {
  const rest = content.length % 512
  return rest === 0 ? Buffer.from(content) : Buffer.concat([content, Buffer.alloc(512 - rest)])
}

function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`, 'utf8'), Buffer.from(value as Uint8Array), Buffer.from('\n')])
  let length = body.length + 1
  while (String(length).length + body.length !== length) length = String(length).length + body.length
  return Buffer.concat([Buffer.from(String(length)), body])
}

/** A tar archive (POSIX ustar with pax headers where something does not fit). */
export function tar(entries: readonly TarEntry[]): Buffer {
  const parts: Buffer[] = []
  for (const entry of entries) {
    const name = Buffer.from(entry.name, 'utf8')
    const content = Buffer.from((entry.content ?? '') as Uint8Array)
    const records: Buffer[] = Object.entries(entry.pax ?? {}).map(([key, value]) => paxRecord(key, value))
    for (const [key, value] of Object.entries(entry.xattrs ?? {})) records.push(paxRecord(`SCHILY.xattr.${key}`, value))
    if (name.length > 100 && entry.pax?.path === undefined) records.push(paxRecord('path', entry.name))
    if (Buffer.byteLength(entry.link ?? '') > 100) records.push(paxRecord('linkpath', entry.link!))
    if (records.length > 0) {
      const pax = Buffer.concat(records)
      parts.push(header(Buffer.from('pax'), 'x', { name: 'pax', mtime: 0 }, pax.length), padded(pax))
    }
    const hasContent = entry.type === undefined || entry.type === 'file'
    parts.push(header(name, typeFlags[entry.type ?? 'file'], entry, entry.size ?? (hasContent ? content.length : 0)))
    if (hasContent) parts.push(padded(content))
  }
  parts.push(Buffer.alloc(1024))
  return Buffer.concat(parts)
}
