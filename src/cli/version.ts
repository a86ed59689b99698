import { readFileSync } from 'node:fs'

/** The version in package.json, which lies two folders above `dist/cli` and `src/cli`. */
export const VERSION: string = (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }).version
