import { compileTemplate } from '../template/evaluate.js'
import { formatTable } from './table.js'

/** A column of a list: the field's name in --format, its heading, and its text for one object. */
export interface Column<T> {
  field: string
  heading: string
  value: (item: T) => string
}

/** Prints `items` as the docker CLI does: `format` is '' or 'table' (the default columns), 'json', 'table TEMPLATE' or TEMPLATE. `label` answers {{.Label "name"}}. */
export function formatRows<T>(items: readonly T[], columns: readonly Column<T>[], defaults: readonly string[], format: string, label?: (item: T, name: string) => string): string {
  // `{{.Label "name"}}` is a method in the docker CLI; it is no column, so json does not show it.
  const method = (of: (name: string) => string) => (label ? { Label: of } : {})
  const fields = (text: (column: Column<T>) => string) => Object.fromEntries(columns.map((column) => [column.field, text(column)]))
  const cells = (item: T) => ({ ...fields((column) => column.value(item)), ...method((name) => label!(item, name)) })
  if (format === 'json') {
    const sorted = [...columns].sort((a, b) => (a.field < b.field ? -1 : 1))
    return items.map((item) => JSON.stringify(Object.fromEntries(sorted.map((c) => [c.field, c.value(item)]))) + '\n').join('')
  }
  const isTable = format === '' || format === 'table' || /^table\s/.test(format)
  const source = isTable ? format.replace(/^table\s*/, '') || defaults.map((name) => `{{.${name}}}`).join('\t') : format
  const template = compileTemplate(source.replaceAll('\\t', '\t').replaceAll('\\n', '\n'))
  if (!isTable) return items.map((item) => template(cells(item)) + '\n').join('')
  const heading = template({ ...fields((column) => column.heading), ...method((name) => name) })
  return formatTable([heading, ...items.map((item) => template(cells(item)))].map((line) => line.split('\t')))
}
