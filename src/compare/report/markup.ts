/** Text that is HTML or SVG already. Only {@link html} makes it. */
export class Markup {
  /** Not for use elsewhere: what is given here is not escaped. */
  constructor(readonly text: string) {}
}

type Part = Markup | string | number | null | undefined | false | readonly Part[]

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', '\'': '&#39;' }

/**
 * Text for an element or a quoted attribute. Control characters (but new line and tab) and those that turn text round or hide are shown as U+FFFD: they are no valid XML, and a
 * command that a reader copies has to be the one that he sees.
 */
export const escape = (text: string): string => text
  .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, '\ufffd').replace(/[&<>"']/g, (character) => ENTITIES[character]!)

function textOf(part: Part): string {
  if (part instanceof Markup) return part.text
  if (Array.isArray(part)) return (part as readonly Part[]).map(textOf).join('')
  return part === null || part === undefined || part === false ? '' : escape(String(part))
}

/** Markup in which everything that is put in is escaped, unless it is Markup itself. Attributes must be quoted. */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Markup {
  return new Markup(strings.map((text, i) => text + (i < parts.length ? textOf(parts[i]) : '')).join(''))
}
