/** Width of a text in terminal cells, near enough: wide East Asian characters and emoji are not counted double, as in Go's tabwriter. */
function width(text: string): number {
  return [...text].length
}

/**
 * Columns as the docker CLI aligns them: Go's text/tabwriter with a cell's minimal width of 10 and a padding of 3. The last
 * column is not padded.
 */
export function formatTable(rows: readonly (readonly string[])[], minimum = 10, padding = 3): string {
  const widths: number[] = []
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, width(cell))
  }
  return rows
    .map((row) => row
      .map((cell, i) => (i === row.length - 1 ? cell : cell + ' '.repeat(Math.max(minimum, widths[i]! + padding) - width(cell))))
      .join('') + '\n')
    .join('')
}
