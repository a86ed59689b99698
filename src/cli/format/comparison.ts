import { writeFile } from 'node:fs/promises'
import { codeOf, messageOf } from '../../base/errors.js'
import { readComparison } from '../../compare/stored.js'
import { renderTable } from '../../compare/report/table.js'
import type { Screen } from '../../compare/report/terminal.js'
import type { Comparison } from '../../compare/types.js'
import { CliError } from '../errors.js'
import type { Streams } from '../terminal/session.js'

/** What is not a terminal gets this many columns: a file is read in a wide window. */
const FILE_COLUMNS = 160

/** Columns and colours of our stdout (https://no-color.org). */
export function screenOf({ stdout }: Streams): Screen {
  return { columns: (stdout.isTTY && stdout.columns) || FILE_COLUMNS, color: Boolean(stdout.isTTY) && !process.env['NO_COLOR'] }
}

/** A comparison's file; CliError with its path. */
export async function openComparison(path: string): Promise<Comparison> {
  try {
    return await readComparison(path)
  } catch (error) {
    throw new CliError(`${path}: ${codeOf(error) === 'ENOENT' ? 'no such file or directory' : messageOf(error)}`, 1, { cause: error })
  }
}

/** Where a comparison goes: a table or its JSON on stdout, and the page in a file where one is named ('' for none). */
export async function showComparison(streams: Streams, comparison: Comparison, { format, html }: { format: 'table' | 'json'; html: string }): Promise<void> {
  if (html !== '') {
    // The plots are loaded when they are wanted.
    const { renderHtml } = await import('../../compare/report/html.js')
    try {
      await writeFile(html, renderHtml(comparison))
    } catch (error) {
      throw new CliError(`open ${html}: ${messageOf(error)}`, 1, { cause: error })
    }
  }
  streams.stdout.write(format === 'json' ? `${JSON.stringify(comparison, null, 1)}\n` : renderTable(comparison, screenOf(streams)))
}
