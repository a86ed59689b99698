import { open } from 'node:fs/promises'

export type Compression = '' | '+gzip' | '+zstd'

/** How a blob is compressed, by its first bytes (RFC 1952, RFC 8878): what a media type says was not always checked. */
export async function compressionOf(path: string): Promise<Compression> {
  const file = await open(path, 'r')
  try {
    const head = Buffer.alloc(4)
    const { bytesRead } = await file.read(head, 0, 4, 0)
    if (bytesRead >= 2 && head.readUInt16BE(0) === 0x1f8b) return '+gzip'
    return bytesRead === 4 && head.readUInt32LE(0) === 0xfd2fb528 ? '+zstd' : ''
  } finally {
    await file.close()
  }
}
