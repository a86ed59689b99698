/** A query as resolvers send it. */
export function packet(name: string, type: number, options: { id?: number; flags?: number; class?: number; edns?: number } = {}): Buffer {
  const labels = name === '' ? [] : name.split('.')
  const question = Buffer.concat([...labels.flatMap((label) => [Buffer.from([label.length]), Buffer.from(label, 'latin1')]), Buffer.from([0, 0, 0, 0, 0])])
  question.writeUInt16BE(type, question.length - 4)
  question.writeUInt16BE(options.class ?? 1, question.length - 2)
  const header = Buffer.alloc(12)
  header.writeUInt16BE(options.id ?? 0x1234, 0)
  header.writeUInt16BE(options.flags ?? 0x0100, 2)
  header.writeUInt16BE(1, 4)
  if (options.edns === undefined) return Buffer.concat([header, question])
  header.writeUInt16BE(1, 10)
  const opt = Buffer.from([0, 0, 41, options.edns >> 8, options.edns & 255, 0, 0, 0, 0, 0, 0])
  return Buffer.concat([header, question, opt])
}
