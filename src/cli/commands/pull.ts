import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { codeOf } from '../../base/errors.js'
import { boolFlag, collect, listFlag, textFlag, type CommandDefinition, type Context } from '../command.js'
import { registryAuth } from '../registry-auth.js'
import { CliError } from '../errors.js'
import { jsonValues, showProgress, type Progress, type Screen } from '../progress.js'

/** 'host:5000/a/b:tag' → name and tag; a digest counts as a tag in the API. */
export function splitReference(reference: string): { name: string; tag: string } {
  const digest = reference.indexOf('@')
  if (digest >= 0) return { name: reference.slice(0, digest), tag: reference.slice(digest + 1) }
  const colon = reference.lastIndexOf(':')
  if (colon > reference.lastIndexOf('/')) return { name: reference.slice(0, colon), tag: reference.slice(colon + 1) }
  return { name: reference, tag: '' }
}

/** POST /images/create with progress on `screen`. */
export async function pullImage(context: Context, reference: string, options: { platform: string; quiet: boolean; screen: Screen; allTags?: boolean }): Promise<void> {
  const { name, tag } = splitReference(reference)
  const auth = await registryAuth(name)
  const response = await context.client.send('POST', '/images/create', {
    query: { fromImage: name, tag: options.allTags ? '' : tag || 'latest', platform: options.platform },
    headers: auth ? { 'X-Registry-Auth': auth } : {},
  })
  await showProgress(response, options.screen, options.quiet)
}

/** `hull pull`. */
export const pullDefinition: CommandDefinition = {
  usage: 'pull [OPTIONS] NAME[:TAG|@DIGEST]',
  summary: 'Download an image from a registry',
  arguments: [1, 1],
  flags: (command) => {
    command.option('-a, --all-tags', 'Download all tagged images in the repository')
    command.option('--platform <string>', 'Set platform if server is multi-platform capable')
    command.option('-q, --quiet', 'Suppress verbose output')
  },
  run: async (context, flags, [reference = '']) => {
    const { stdout } = context.streams
    const quiet = boolFlag(flags, 'quiet')
    const allTags = boolFlag(flags, 'allTags')
    const { name, tag } = splitReference(reference)
    if (allTags && tag) throw new CliError('tag can\'t be used with --all-tags/-a')
    if (!tag && !allTags && !quiet) stdout.write('Using default tag: latest\n')
    await pullImage(context, reference, { platform: textFlag(flags, 'platform'), quiet, screen: stdout, allTags })
    stdout.write(`${canonicalName(name)}${allTags ? '' : reference.includes('@') ? `@${tag}` : `:${tag || 'latest'}`}\n`)
    return 0
  },
}

/** 'busybox' → 'docker.io/library/busybox': what the docker CLI prints last. */
export function canonicalName(name: string): string {
  const slash = name.indexOf('/')
  const first = name.slice(0, Math.max(0, slash))
  if (slash > 0 && (first.includes('.') || first.includes(':') || first === 'localhost')) return name
  return slash > 0 ? `docker.io/${name}` : `docker.io/library/${name}`
}

/** The file named, or our stdin for '-' and ''. */
async function openInput(context: Context, path: string): Promise<Readable> {
  if (path === '' || path === '-') {
    if (context.streams.stdin.isTTY) throw new CliError('requested load from stdin, but stdin is empty')
    return context.streams.stdin
  }
  try {
    await stat(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') throw new CliError(`open ${path}: no such file or directory`)
    throw error
  }
  return createReadStream(path, { highWaterMark: 1 << 20 })
}

/** `hull load`. */
export const loadDefinition: CommandDefinition = {
  usage: 'load [OPTIONS]',
  summary: 'Load an image from a tar archive or STDIN',
  arguments: [0, 0],
  flags: (command) => {
    command.option('-i, --input <string>', 'Read from tar archive file, instead of STDIN')
    command.option('--platform <string>', 'Load only the given platform variant')
    command.option('-q, --quiet', 'Suppress the load output')
  },
  run: async (context, flags) => {
    const upload = await openInput(context, textFlag(flags, 'input'))
    const quiet = boolFlag(flags, 'quiet') || !context.streams.stdout.isTTY
    const response = await context.client.send('POST', '/images/load', { query: { quiet, platform: textFlag(flags, 'platform') }, upload })
    await showProgress(response, context.streams.stdout)
    return 0
  },
}

/** `hull import`. */
export const importDefinition: CommandDefinition = {
  usage: 'import [OPTIONS] file|- [REPOSITORY[:TAG]]',
  summary: 'Import the contents from a tarball to create a filesystem image',
  arguments: [1, 2],
  flags: (command) => {
    command.option('-c, --change <list>', 'Apply Dockerfile instruction to the created image', collect)
    command.option('-m, --message <string>', 'Set commit message for imported image')
    command.option('--platform <string>', 'Set platform if server is multi-platform capable')
  },
  run: async (context, flags, [file = '-', reference = '']) => {
    const { name, tag } = splitReference(reference)
    const upload = await openInput(context, file)
    // `changes` may come many times, which is why the query is written by hand.
    const changes = listFlag(flags, 'change').map((change) => `&changes=${encodeURIComponent(change)}`).join('')
    const query = new URLSearchParams({ fromSrc: '-', repo: name, tag, message: textFlag(flags, 'message'), platform: textFlag(flags, 'platform') })
    const response = await context.client.send('POST', `/images/create?${query.toString()}${changes}`, { upload })
    for await (const message of jsonValues<Progress>(response)) {
      if (message.error !== undefined) throw new CliError(message.errorDetail?.message ?? message.error)
      if (message.status !== undefined) context.streams.stdout.write(`${message.status}\n`)
    }
    return 0
  },
}
