/*
 * Libraries that a program is linked with and that it never calls as we use it: QEMU's disassembler, picture formats, RDMA (src/sandbox/vm/never-called.ts); systemd's, of crun (libraries.ts). They must be there,
 * with all their names, or the dynamic loader gives up; they need not work. A disarmed copy has its names and no executable byte, no relocation, no constructor, and needs no library itself: less to attack or to build an
 * attack from, less to load, less memory in each process (relocated tables are private pages). Whoever calls into one all the same dies of SIGSEGV. ELF: System V ABI, gABI 4.1, chapters 4 and 5; docs/decisions/0014-jail.md.
 */

const EHDR_SIZE = 64
const PHDR_SIZE = 56
const DYN_SIZE = 16
const PT = { NULL: 0, LOAD: 1, DYNAMIC: 2, GNU_RELRO: 0x6474e552 } as const
const PF_X = 1
const DT = {
  NULL: 0, NEEDED: 1, PLTRELSZ: 2, STRTAB: 5, RELASZ: 8, INIT: 12, FINI: 13, RELSZ: 18, INIT_ARRAYSZ: 27, FINI_ARRAYSZ: 28, RELRSZ: 35, RELR: 36, RELRENT: 37,
  RELACOUNT: 0x6ffffff9, RELCOUNT: 0x6ffffffa, VERNEED: 0x6ffffffe, VERNEEDNUM: 0x6fffffff,
} as const
/** An entry that no loader knows: DT_LOOS less than any that glibc has a use for. */
const DT_IGNORED = 0x6000_000d
/** Tables that are empty then. */
const EMPTIED: ReadonlySet<number> = new Set([DT.PLTRELSZ, DT.RELASZ, DT.RELSZ, DT.INIT_ARRAYSZ, DT.FINI_ARRAYSZ, DT.RELRSZ])
/** Entries that are gone then. */
const DROPPED: ReadonlySet<number> = new Set([DT.NEEDED, DT.INIT, DT.FINI, DT.RELR, DT.RELRENT, DT.RELACOUNT, DT.RELCOUNT, DT.VERNEED, DT.VERNEEDNUM])

interface Segment { at: number; type: number; offset: number; address: number; size: number }
interface Entry { at: number; tag: number; value: number }

function segmentsOf(file: Buffer): Segment[] {
  if (file.length < EHDR_SIZE || file.readUInt32BE(0) !== 0x7f454c46 || file[4] !== 2 || file[5] !== 1) throw new Error('not an ELF file of 64 bits, little-endian')
  const start = Number(file.readBigUInt64LE(32))
  const count = file.readUInt16LE(56)
  if (file.readUInt16LE(54) !== PHDR_SIZE || start + count * PHDR_SIZE > file.length) throw new Error('its program headers are damaged')
  return Array.from({ length: count }, (_, index) => {
    const at = start + index * PHDR_SIZE
    return { at, type: file.readUInt32LE(at), offset: Number(file.readBigUInt64LE(at + 8)), address: Number(file.readBigUInt64LE(at + 16)), size: Number(file.readBigUInt64LE(at + 32)) }
  })
}

function dynamicOf(file: Buffer, segments: readonly Segment[]): Entry[] {
  const entries: Entry[] = []
  for (const { offset, size } of segments.filter(({ type }) => type === PT.DYNAMIC)) {
    if (offset + size > file.length) throw new Error('its dynamic section is damaged')
    for (let at = offset; at + DYN_SIZE <= offset + size; at += DYN_SIZE) {
      const tag = Number(file.readBigUInt64LE(at))
      if (tag === DT.NULL) break
      entries.push({ at, tag, value: Number(file.readBigUInt64LE(at + 8)) })
    }
  }
  return entries
}

/** Names of the libraries that a program or library asks for. Throws when it is no ELF file of 64 bits or damaged. */
export function neededLibraries(file: Buffer): string[] {
  const segments = segmentsOf(file)
  const entries = dynamicOf(file, segments)
  const address = entries.find(({ tag }) => tag === DT.STRTAB)?.value
  if (address === undefined) return []
  const holder = segments.find((segment) => segment.type === PT.LOAD && segment.address <= address && address < segment.address + segment.size)
  if (!holder) throw new Error('its string table is nowhere')
  const strings = address - holder.address + holder.offset
  return entries.filter(({ tag }) => tag === DT.NEEDED).map(({ value }) => {
    const end = file.indexOf(0, strings + value)
    if (end < 0) throw new Error('its string table is damaged')
    return file.toString('latin1', strings + value, end)
  })
}

/** A copy of a shared library that has its names and does nothing. Throws as {@link neededLibraries}. */
export function disarm(library: Buffer): Buffer {
  const file = Buffer.from(library)
  const segments = segmentsOf(file)
  for (const { at, tag } of dynamicOf(file, segments)) {
    if (EMPTIED.has(tag)) file.writeBigUInt64LE(0n, at + 8)
    else if (DROPPED.has(tag)) file.writeBigUInt64LE(BigInt(DT_IGNORED), at)
  }
  for (const { at, type } of segments) {
    if (type === PT.LOAD) file.writeUInt32LE(file.readUInt32LE(at + 4) & ~PF_X, at + 4)
    else if (type === PT.GNU_RELRO) file.writeUInt32LE(PT.NULL, at)
  }
  return file
}

/** Of the libraries that programs ask for, through each other: those that have to be there when those of `never` ask for none. Values: whether it is one of `never`. */
export function neededWithout(programs: readonly Buffer[], libraryOf: (name: string) => Buffer | undefined, never: ReadonlySet<string>): Map<string, boolean> {
  const found = new Map<string, boolean>()
  const visit = (file: Buffer) => {
    for (const name of neededLibraries(file)) {
      if (found.has(name)) continue
      found.set(name, never.has(name))
      const library = never.has(name) ? undefined : libraryOf(name)
      if (library) visit(library)
    }
  }
  for (const program of programs) visit(program)
  return found
}
