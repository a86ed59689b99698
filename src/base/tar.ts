/** The head of one member of a tar archive that Hull writes. */
export interface TarHeader {
  /** Without a leading slash; directories end with one. */
  name: string
  type: 'file' | 'dir' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'
  /** Permission bits and set-ID bits. */
  mode: number
  uid: number
  gid: number
  /** seconds since the epoch; fractions are kept */
  mtime: number
  /** bytes; files only */
  size?: number
  /** Target of a link. */
  link?: string
  device?: { major: number; minor: number }
  /** Extended attributes: pax records SCHILY.xattr.NAME. */
  xattrs?: Record<string, Uint8Array>
}

const typeFlags = { file: '0', hardlink: '1', symlink: '2', char: '3', block: '4', dir: '5', fifo: '6' } as const
export const tarBlock = 512

/** What fills up the last block of a member of `size` bytes. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc((tarBlock - (size % tarBlock)) % tarBlock)
}

/** The two empty blocks at the end. */
export const tarEnd = (): Buffer => Buffer.alloc(2 * tarBlock)

const fits = (value: number, digits: number) => Number.isInteger(value) && value >= 0 && value < 8 ** digits
const isAscii = (text: string) => /^[\x00-\x7f]*$/.test(text)

/** One record of a pax header: its length counts itself (POSIX pax, "pax Extended Header"). */
function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value as Uint8Array), Buffer.from('\n')])
  let length = body.length + 1
  while (String(length).length + body.length !== length) length = String(length).length + body.length
  return Buffer.concat([Buffer.from(String(length)), body])
}

function block(name: string, flag: string, header: Omit<TarHeader, 'name' | 'type'>): Buffer {
  const out = Buffer.alloc(tarBlock)
  const octal = (value: number, at: number, width: number) => out.write(`${(fits(value, width - 1) ? value : 0).toString(8).padStart(width - 1, '0')}\0`, at, 'latin1')
  out.write(name, 0, 100, 'utf8')
  octal(header.mode & 0o7777, 100, 8)
  octal(header.uid, 108, 8)
  octal(header.gid, 116, 8)
  octal(header.size ?? 0, 124, 12)
  octal(Math.floor(header.mtime), 136, 12)
  out.write('        ', 148, 'latin1')
  out.write(flag, 156, 'latin1')
  out.write(header.link ?? '', 157, 100, 'utf8')
  out.write('ustar\x0000', 257, 'latin1')
  octal(header.device?.major ?? 0, 329, 8)
  octal(header.device?.minor ?? 0, 337, 8)
  let sum = 0
  for (const byte of out) sum += byte
  out.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return out
}

/**
 * The blocks before a member's content: POSIX ustar, with a pax header for what does not fit. The same input always gives the same
 * bytes. A file's content, {@link tarPadding} and at last {@link tarEnd} follow.
 */
export function tarHeader(header: TarHeader): Buffer {
  const records: Buffer[] = []
  const text = (key: string, value: string) => {
    if (Buffer.byteLength(value) > 100 || !isAscii(value)) records.push(paxRecord(key, value))
  }
  text('path', header.name)
  text('linkpath', header.link ?? '')
  const size = header.type === 'file' ? (header.size ?? 0) : 0
  if (!fits(size, 11)) records.push(paxRecord('size', String(size)))
  if (!fits(header.uid, 7)) records.push(paxRecord('uid', String(header.uid)))
  if (!fits(header.gid, 7)) records.push(paxRecord('gid', String(header.gid)))
  if (!fits(header.mtime, 11)) records.push(paxRecord('mtime', String(header.mtime)))
  for (const [name, value] of Object.entries(header.xattrs ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))) records.push(paxRecord(`SCHILY.xattr.${name}`, value))
  const parts: Buffer[] = []
  if (records.length > 0) {
    const pax = Buffer.concat(records)
    parts.push(block('PaxHeaders.0/entry', 'x', { mode: 0o644, uid: 0, gid: 0, mtime: 0, size: pax.length }), pax, tarPadding(pax.length))
  }
  parts.push(block(header.name, typeFlags[header.type], { ...header, size }))
  return Buffer.concat(parts)
}
