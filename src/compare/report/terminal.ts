import type { Tone } from './sheets.js'

/** Columns of the terminal, and whether it has colours. */
export interface Screen { columns: number; color: boolean }

const CODES: Record<Tone | 'bold', string> = { good: '32', bad: '31;1', dim: '2', bold: '1' }

/** Text in a colour (ECMA-48 SGR), where there are any. */
export const paint = (text: string, tone: Tone | 'bold' | undefined, { color }: Screen): string => (color && tone && text !== '' ? `\u001b[${CODES[tone]}m${text}\u001b[0m` : text)

/** Cells that a terminal gives a text, near enough: wide characters count double, combining ones nothing (Unicode TR 11). */
export function width(text: string): number {
  let sum = 0
  for (const character of text) {
    if (/\p{M}/u.test(character)) continue
    sum += /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u.test(character) ? 2 : 1
  }
  return sum
}

export const pad = (text: string, cells: number): string => text + ' '.repeat(Math.max(0, cells - width(text)))

/** Words in lines of at most `columns` cells, the first with the spaces that it has, the others after `indent`; a word longer than a line stays whole. */
export function wrap(text: string, columns: number, indent = ''): string {
  const lines: string[] = []
  const before = /^ */.exec(text)![0]
  let line = ''
  for (const word of text.trim().split(' ')) {
    if (line !== '' && width(line) + 1 + width(word) > columns) {
      lines.push(line)
      line = indent + word
    } else line = line === '' ? before + word : `${line} ${word}`
  }
  return [...lines, line].join('\n')
}
