import { createHash } from 'node:crypto'
import { posix } from 'node:path'
import { Readable } from 'node:stream'
import { badRequest, codeOf, HullError, messageOf } from '../base/errors.js'
import { readFileInRoot } from '../host/paths.js'
import { applyChange } from '../image/changes.js'
import { dockerfileLimit, expand, expandWords, jsonWords, parseDockerfile, parseInstruction, type Instruction } from '../image/dockerfile.js'
import { parseReference, taggedReference } from '../image/references.js'
import type { Image, ImageConfig } from '../image/types.js'
import type { ContainerConfig, ContainerEngine, CreateContainerRequest, ImageEngine } from './api-types.js'
import { BuildTree, contextPath } from './build-files.js'
import { BuildSources, joined, type BuildPick, type Releases } from './build-sources.js'
import { BuildArgs, envValue, type Stage } from './build-stage.js'
import { StepError, type BuildRequest } from './build-types.js'
import { BuildWork, runStep } from './build-work.js'
import type { Lifecycle } from './lifecycle.js'

const defaultShell = ['/bin/sh', '-c']
const short = (id: string) => id.replace('sha256:', '').slice(0, 12)
const needsBuildKit = (option: string) => badRequest(`the --${option} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled`)

/**
 * `docker build` by the classic builder's rules. RUN is a container of Hull's own, behind the wall that the user chose; COPY and ADD go through
 * hull-files; each step is an image, found again by what it was (docs/decisions/0009-images-and-build.md).
 */
export class Builder {
  constructor(
    private readonly lifecycle: Lifecycle,
    private readonly containers: ContainerEngine,
    private readonly images: ImageEngine,
  ) {}

  /** Builds from a tar of the context; resolves with the image's ID. What can be refused before the first step is refused before anything is said. */
  async build(tar: Readable, request: BuildRequest): Promise<string> {
    const service = this.lifecycle.parts.images
    const tags = request.tags.map((tag) => {
      const reference = parseReference(tag)
      if (reference.digest !== undefined) throw badRequest('refusing to create a tag with a digest reference')
      return tag
    })
    const context = await service.unpackTree(tar, request.signal)
    try {
      const build = new Build(this.lifecycle, this.containers, this.images, request, new BuildTree(context.root))
      const id = await build.run()
      for (const tag of tags) {
        const { repo, tag: bare } = splitTag(tag)
        await this.images.tag(id, repo, bare)
        if (!request.quiet) request.onProgress({ stream: `Successfully tagged ${repo}:${bare}\n` })
      }
      return id
    } finally {
      await context.release()
    }
  }
}

/** 'host:5000/a/b:1' → repository and tag. */
function splitTag(text: string): { repo: string; tag: string } {
  const colon = text.lastIndexOf(':')
  const parts = colon > text.lastIndexOf('/') ? { repo: text.slice(0, colon), tag: text.slice(colon + 1) } : { repo: text, tag: 'latest' }
  taggedReference(parts.repo, parts.tag)
  return parts
}

/** One build under way. */
class Build {
  private readonly args: BuildArgs
  private readonly sources: BuildSources
  private readonly stages: Stage[] = []
  private escape = '\\'
  private step = 0
  private steps = 0

  constructor(
    private readonly lifecycle: Lifecycle,
    private readonly containers: ContainerEngine,
    private readonly imageEngine: ImageEngine,
    private readonly request: BuildRequest,
    private readonly context: BuildTree,
  ) {
    this.args = new BuildArgs(request.buildArgs)
    this.sources = new BuildSources(lifecycle.parts.images, request.signal)
  }

  private get images() {
    return this.lifecycle.parts.images
  }
  private get stage(): Stage {
    return this.stages.at(-1)!
  }
  private say(text: string): void {
    if (!this.request.quiet) this.request.onProgress({ stream: text })
  }

  async run(): Promise<string> {
    const { request } = this
    const { instructions, escape } = parseDockerfile(await this.dockerfile())
    this.escape = escape
    await this.context.hideIgnored(contextPath(request.dockerfile))
    const wanted = this.upToTarget(instructions)
    if (Object.keys(request.labels).length > 0) {
      const pairs = Object.entries(request.labels).sort().map(([key, value]) => `${quoted(key)}=${quoted(value)}`)
      wanted.push({ name: 'LABEL', flags: [], rest: pairs.join(' '), line: 0 })
    }
    this.steps = wanted.length
    for (const warning of request.warnings) this.say(`[Warning] ${warning}\n`)
    for (const instruction of wanted) {
      request.signal.throwIfAborted()
      this.say(`Step ${++this.step}/${this.steps} : ${display(instruction)}\n`)
      await this.dispatch(instruction)
    }
    const unused = this.args.unused()
    if (unused.length > 0) this.say(`[Warning] One or more build-args [${unused.join(' ')}] were not consumed\n`)
    const { image } = this.stage
    if (image === '') throw badRequest('No image was generated. Is your Dockerfile empty?')
    if (request.quiet) request.onProgress({ stream: `${image}\n` })
    else {
      request.onProgress({ aux: { ID: image } })
      this.say(`Successfully built ${short(image)}\n`)
    }
    return image
  }

  private async dockerfile(): Promise<string> {
    const path = contextPath(this.request.dockerfile)
    try {
      const text = (await readFileInRoot(this.context.root, path, dockerfileLimit)).toString('utf8')
      if (text.trim() === '') throw badRequest(`the Dockerfile (${this.request.dockerfile}) cannot be empty`)
      return text
    } catch (error) {
      if (error instanceof HullError) throw error
      if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR') throw badRequest(`Cannot locate specified Dockerfile: ${this.request.dockerfile}`, error)
      throw badRequest(`cannot read the Dockerfile ${this.request.dockerfile}: ${messageOf(error)}`, error)
    }
  }

  /** The stages up to the one that is wanted; first the checks that need no work. */
  private upToTarget(instructions: readonly Instruction[]): Instruction[] {
    const froms = instructions.flatMap((instruction, i) => (instruction.name === 'FROM' ? [{ i, name: /\sAS\s+(\S+)$/i.exec(instruction.rest)?.[1]?.toLowerCase() ?? '' }] : []))
    if (froms.length === 0) throw badRequest('no build stage in current context')
    const early = instructions.slice(0, froms[0]!.i).find((instruction) => instruction.name !== 'ARG')
    if (early !== undefined) throw badRequest(`dockerfile parse error on line ${early.line}: no build stage in current context`)
    for (const { name, flags, rest } of instructions) {
      if (name === 'RUN' && flags.length > 0) throw needsBuildKit(flags[0]![0])
      if ((name === 'COPY' || name === 'ADD') && flags.some(([flag]) => !['from', 'chown', 'chmod'].includes(flag))) {
        const [flag] = flags.find(([other]) => !['from', 'chown', 'chmod'].includes(other))!
        if (['link', 'parents', 'exclude', 'checksum', 'keep-git-dir'].includes(flag)) throw needsBuildKit(flag)
        throw badRequest(`Unknown flag: ${flag}`)
      }
      if (name === 'ADD' && flags.some(([flag]) => flag === 'from')) throw badRequest('Unknown flag: from')
      if (name === 'ADD' && /(^|[\s"[])(https?:\/\/|git@|ssh:\/\/)/.test(rest)) throw badRequest('ADD from a URL is not supported by Hull: download the file in a RUN step, or before the build')
    }
    if (this.request.target === '') return [...instructions]
    const target = this.request.target.toLowerCase()
    let index = froms.findIndex((from) => from.name === target)
    if (index < 0 && /^\d+$/.test(target)) index = Number(target)
    if (index < 0 || index >= froms.length) throw badRequest(`failed to reach build target ${this.request.target} in Dockerfile`)
    return instructions.slice(0, froms[index + 1]?.i ?? instructions.length)
  }

  private readonly lookup = (name: string): string | undefined => envValue(this.stage.config, name) ?? this.args.lookup(name)

  private async dispatch(instruction: Instruction): Promise<void> {
    const { name, rest } = instruction
    if (name === 'ARG') return this.arg(rest)
    if (name === 'FROM') return this.from(instruction)
    const plain = () => expand(rest, this.lookup, this.escape, 'plain')
    const keep = () => expand(rest, this.lookup, this.escape, 'keep')
    switch (name) {
      case 'RUN':
        return this.runCommand(rest)
      case 'COPY':
      case 'ADD':
        return this.copy(instruction)
      case 'WORKDIR':
        return this.workdir(plain())
      case 'MAINTAINER':
        this.stage.author = rest
        return this.change(`MAINTAINER ${rest}`, this.stage.config)
      case 'SHELL': {
        const shell = jsonWords(rest)
        if (shell === undefined || shell.length === 0) throw badRequest('SHELL requires the arguments to be in JSON form')
        return this.change(`SHELL [${shell.join(' ')}]`, { ...this.stage.config, Shell: shell })
      }
      case 'ONBUILD': {
        const trigger = parseInstruction(rest, instruction.line)
        if (trigger.name === 'ONBUILD') throw badRequest('Chaining ONBUILD via `ONBUILD ONBUILD` isn\'t allowed')
        if (trigger.name === 'FROM' || trigger.name === 'MAINTAINER') throw badRequest(`${trigger.name} isn't allowed as an ONBUILD trigger`)
        return this.apply(name, rest, rest)
      }
      case 'CMD':
        this.stage.saidCmd = true
        return this.apply(name, rest, commandText(rest, this.stage.config))
      case 'ENTRYPOINT': {
        const config = structuredClone(this.stage.config)
        if (!this.stage.saidCmd) delete config.Cmd
        return this.apply(name, rest, commandText(rest, config), config)
      }
      case 'HEALTHCHECK':
        return this.apply(name, rest, rest)
      case 'USER':
      case 'STOPSIGNAL':
        return this.apply(name, plain(), plain())
      case 'ENV':
      case 'LABEL':
        return this.apply(name, keep(), rest)
      case 'EXPOSE':
        return this.apply(name, plain(), plain())
      default: // VOLUME
        return this.apply(name, jsonWords(rest) ? rest : keep(), rest)
    }
  }

  // what stays without files ---------------------------------------------------------------------------------------

  private apply(name: string, change: string, shown: string, config: ImageConfig = structuredClone(this.stage.config)): Promise<void> {
    applyChange(config, `${name} ${change}`)
    return this.change(`${name} ${shown}`, config)
  }

  private async change(said: string, config: ImageConfig): Promise<void> {
    const createdBy = `/bin/sh -c #(nop) ${said}`
    if (this.stage.image === '') {
      // Nothing to stand on yet: the first layer takes it along.
      this.stage.config = config
      this.stage.pending.push({ created: new Date().toISOString(), created_by: createdBy, empty_layer: true })
      this.say(' ---> \n')
      return
    }
    await this.commit(createdBy, config, this.key(createdBy, config), undefined)
  }

  private key(createdBy: string, config: ImageConfig, content = ''): string {
    return createHash('sha256').update(JSON.stringify([createdBy, config, content, this.stage.author, this.stage.pending.map((line) => line.created_by), this.stage.image === '' ? this.request.platform : ''])).digest('hex')
  }

  /** True when an earlier build did the same: the stage goes on from its image. */
  private useCache(key: string): boolean {
    if (this.request.noCache || this.stage.cacheBroken) return false
    const found = this.images.cached(this.stage.image, key)
    if (found === undefined) {
      this.stage.cacheBroken = true
      return false
    }
    this.say(' ---> Using cache\n')
    this.advance(found)
    return true
  }

  private advance(image: Pick<Image, 'id' | 'config'>): void {
    this.stage.image = image.id
    this.stage.config = structuredClone(image.config)
    this.stage.pending = []
    this.say(` ---> ${short(image.id)}\n`)
  }

  private async commit(createdBy: string, config: ImageConfig, key: string, layer: Readable | undefined, cached = false): Promise<void> {
    if (!cached && this.useCache(key)) return
    const { stage } = this
    this.advance(await this.images.derive({
      parent: stage.image, config, createdBy, key, signal: this.request.signal, ...(layer ? { layer } : {}), ...(stage.author ? { author: stage.author } : {}),
      ...(stage.image === '' ? { history: stage.pending, ...(this.request.platform ? { platform: this.request.platform } : {}) } : {}),
    }))
  }

  private arg(rest: string): void {
    const inStage = this.stages.length > 0
    const lookup = (name: string) => (inStage ? this.lookup(name) : this.args.globalValue(name))
    for (const word of expandWords(rest, lookup, this.escape)) {
      const equals = word.indexOf('=')
      const name = equals < 0 ? word : word.slice(0, equals)
      if (!/^[A-Za-z_]\w*$/.test(name)) throw badRequest(`ARG names can not be ${name === '' ? 'blank' : `"${name.slice(0, 100)}"`}`)
      const fallback = equals < 0 ? undefined : word.slice(equals + 1)
      if (inStage) this.args.declare(name, fallback)
      else this.args.declareGlobal(name, fallback)
    }
    if (inStage && this.stage.image !== '') this.say(` ---> ${short(this.stage.image)}\n`)
  }

  // FROM -------------------------------------------------------------------------------------------------------------

  private async from(instruction: Instruction): Promise<void> {
    const lookup = (name: string) => this.args.globalValue(name)
    const words = expandWords(instruction.rest, lookup, this.escape)
    if (words.length !== 1 && !(words.length === 3 && words[1]!.toUpperCase() === 'AS')) throw badRequest(`dockerfile parse error on line ${instruction.line}: FROM requires either one or three arguments`)
    const name = words[2]?.toLowerCase() ?? ''
    if (name !== '' && !/^[a-z][a-z0-9_.-]*$/.test(name)) throw badRequest(`invalid name for build stage: "${words[2]}", name can't start with a number or contain symbols`)
    const base = words[0]!
    if (base === '') throw badRequest('base name (FROM) should not be blank')
    const unknown = instruction.flags.find(([flag]) => flag !== 'platform')
    if (unknown) throw badRequest(`Unknown flag: ${unknown[0]}`)
    const platform = expand(instruction.flags.find(([flag]) => flag === 'platform')?.[1] ?? '', lookup, this.escape, 'plain') || this.request.platform
    const earlier = this.stages.find((stage) => stage.name !== '' && stage.name === base.toLowerCase())
    const stage: Stage = { name, image: '', config: {}, pending: [], saidCmd: false, author: '', cacheBroken: false }
    this.args.newStage()
    this.stages.push(stage)
    if (base === 'scratch') {
      stage.config = { Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] }
      this.say(' ---> \n')
      return
    }
    if (earlier !== undefined) {
      if (earlier.image === '') throw badRequest(`stage ${base} has no content`)
      this.advance({ id: earlier.image, config: earlier.config })
    } else this.advance(await this.baseImage(base, platform))
    const triggers = stage.config.OnBuild ?? []
    if (triggers.length === 0) return
    this.say(`# Executing ${triggers.length} build trigger${triggers.length > 1 ? 's' : ''}\n`)
    delete stage.config.OnBuild
    for (const trigger of triggers) await this.dispatch(parseInstruction(trigger, instruction.line))
  }

  /** Hull's own image, else the registry's. */
  private async baseImage(name: string, platform: string): Promise<Image> {
    if (!this.request.pull) {
      const image = await this.images.get(name).catch((error: unknown) => {
        if (error instanceof HullError && error.statusCode === 404) return undefined
        throw error
      })
      if (image !== undefined) return image
    }
    const reference = parseReference(name)
    const auth = this.request.auth(reference.domain)
    await this.imageEngine.pull(name, {
      platform, allTags: false, signal: this.request.signal, onProgress: (message) => !this.request.quiet && this.request.onProgress(message), ...(auth ? { auth } : {}),
    })
    return this.images.get(name)
  }

  // RUN --------------------------------------------------------------------------------------------------------------

  private async runCommand(rest: string): Promise<void> {
    const { stage, request } = this
    const shell = stage.config.Shell ?? defaultShell
    const command = jsonWords(rest) ?? [...shell, rest]
    const { all, shown } = this.args.environment(stage.config.Env ?? [])
    const createdBy = [...(shown.length > 0 ? [`|${shown.length}`, ...shown] : []), ...command].join(' ')
    const config = structuredClone(stage.config)
    // The words as they are: joined, ["touch", "a b"] and ["touch", "a", "b"] are one text and two commands.
    const key = this.key(createdBy, config, JSON.stringify([shown, command, request.container.hostConfig.NetworkMode === 'none' ? 'no network' : '']))
    if (stage.image === '') throw badRequest(`RUN ${rest.slice(0, 100)}: there is nothing to run in an image from scratch`)
    if (this.useCache(key)) return
    let running = ''
    const code = await runStep(this.containers, this.lifecycle, this.containerFor(stage, command, all), {
      keep: request.keep, signal: request.signal, onOutput: (text) => this.say(text),
      onStart: (id) => {
        running = id
        this.say(` ---> Running in ${short(id)}\n`)
      },
      onChanges: async (job) => {
        if (!request.keep) this.say(` ---> Removed intermediate container ${short(running)}\n`)
        await this.commit(createdBy, config, key, job.output, true)
      },
    })
    if (code !== 0) throw new StepError(`The command '${command.join(' ')}' returned a non-zero code: ${code}`, code)
  }

  private containerFor(stage: Stage, command: string[], args: readonly string[]): CreateContainerRequest {
    const template = structuredClone(this.request.container)
    const config: ContainerConfig = {
      // [''] : no entrypoint, whatever the image says. A health check or a label that looks for containers is not for steps.
      ...template.config, Image: stage.image, Cmd: command, Entrypoint: [''], Env: [...args, ...(stage.config.Env ?? [])],
      Healthcheck: { Test: ['NONE'], Interval: 0, Timeout: 0, StartPeriod: 0, StartInterval: 0, Retries: 0 },
    }
    return { ...template, config }
  }

  // COPY, ADD, WORKDIR -----------------------------------------------------------------------------------------------

  private destination(path: string): string {
    const absolute = path.startsWith('/') ? path : `${this.stage.config.WorkingDir ?? ''}/${path}`
    return posix.normalize(`/${absolute}`).replace(/(?<=.)\/+$/, '')
  }

  private async copy({ name, flags, rest }: Instruction): Promise<void> {
    const words = jsonWords(rest)?.map((word) => expand(word, this.lookup, this.escape, 'plain')) ?? expandWords(rest, this.lookup, this.escape)
    if (words.length < 2) throw badRequest(`${name} requires at least two arguments, but only one was provided. Destination could not be determined.`)
    const flag = (wanted: string) => expand(flags.find(([flagName]) => flagName === wanted)?.[1] ?? '', this.lookup, this.escape, 'plain')
    const [from, owner, chmod] = [flag('from'), flag('chown'), flag('chmod')]
    if (chmod !== '' && !/^[0-7]{1,4}$/.test(chmod)) throw badRequest(`invalid chmod parameter: '${chmod.slice(0, 100)}'. it should be octal string and between 0 and 07777`)
    const sources = words.slice(0, -1)
    const target = words.at(-1)!
    const releases: Releases = []
    try {
      const picks = from === '' ? sources.map((source) => ({ tree: this.context, source })) : await this.picksOf(from, sources, releases)
      const work = this.stage.image === '' ? undefined : await BuildWork.open(this.lifecycle.parts, this.stage.image, this.request.container)
      if (work) releases.push(() => work.close())
      const files = await this.sources.files(name, picks, { target, path: this.destination(target) }, work, { ...(chmod === '' ? {} : { mode: parseInt(chmod, 8) }), owned: from !== '' && owner === '' }, releases)
      let content = ''
      for (const part of files) content += await part.tree.digest(part.files, this.request.signal)
      const shown = `${name} ${owner === '' ? '' : `--chown=${owner} `}${chmod === '' ? '' : `--chmod=${chmod} `}multi:${createHash('sha256').update(content).digest('hex')} in ${target}`
      const createdBy = `/bin/sh -c #(nop) ${shown} `
      const config = structuredClone(this.stage.config)
      const key = this.key(createdBy, config, content)
      if (this.useCache(key)) return
      if (work === undefined) {
        if (owner !== '' && !/^\d+(:\d+)?$/.test(owner)) throw badRequest(`unable to convert uid/gid chown string to host mapping: can't find uid for user ${owner.slice(0, 100)}: no such user`)
        const [uid, gid = uid] = owner.split(':').map(Number)
        if (owner !== '') for (const part of files) for (const file of part.files) Object.assign(file.header, { uid, gid })
        await this.commitWork(createdBy, config, key, joined(files))
      } else {
        for (const part of files) await work.put(part.tree.tar(part.files), owner)
        await this.commitLayer(createdBy, config, key, work)
      }
    } finally {
      for (const release of releases.reverse()) await release()
    }
  }

  private async commitWork(createdBy: string, config: ImageConfig, key: string, tar: AsyncIterable<Buffer>): Promise<void> {
    await this.commit(createdBy, config, key, Readable.from(tar, { objectMode: false }), true)
  }

  private async commitLayer(createdBy: string, config: ImageConfig, key: string, work: BuildWork): Promise<void> {
    const job = await work.layer()
    try {
      await this.commit(createdBy, config, key, job.output, true)
      await job.done
    } finally {
      job.cancel()
    }
  }

  /** What COPY --from means: an earlier stage by name or number, else an image. Its files are unpacked beside the context. */
  private async picksOf(from: string, sources: readonly string[], releases: Releases): Promise<BuildPick[]> {
    const stages = this.stages.slice(0, -1)
    const stage = stages.find((candidate) => candidate.name !== '' && candidate.name === from.toLowerCase()) ?? (/^\d+$/.test(from) ? stages[Number(from)] : undefined)
    if (stage === undefined && /^\d+$/.test(from)) throw badRequest(`invalid from flag value ${from}: refers to current build block`)
    const image = stage?.image ?? (await this.baseImage(from, this.request.platform)).id
    if (image === '') throw badRequest(`stage ${from} has no content`)
    return this.sources.ofImage(await BuildWork.open(this.lifecycle.parts, image, this.request.container), sources, releases)
  }

  private async workdir(path: string): Promise<void> {
    const config = structuredClone(this.stage.config)
    config.WorkingDir = this.destination(path)
    const createdBy = `/bin/sh -c #(nop) WORKDIR ${config.WorkingDir}`
    const key = this.key(createdBy, config)
    if (this.stage.image === '') return this.change(`WORKDIR ${config.WorkingDir}`, config)
    if (this.useCache(key)) return
    const work = await BuildWork.open(this.lifecycle.parts, this.stage.image, this.request.container)
    try {
      if ((await work.kind(config.WorkingDir)) !== 'nothing') return await this.commit(createdBy, config, key, undefined, true)
      await work.put(this.context.tar([{ header: { name: `${config.WorkingDir.slice(1)}/`, type: 'dir', mode: 0o755, uid: 0, gid: 0, mtime: Math.floor(Date.now() / 1000) } }]), '')
      await this.commitLayer(createdBy, config, key, work)
    } finally {
      await work.close()
    }
  }
}

const quoted = (text: string) => `"${text.replace(/["\\$]/g, '\\$&')}"`
const display = ({ name, flags, rest }: Instruction) => [name, ...flags.map(([flag, value]) => (value === '' ? `--${flag}` : `--${flag}=${value}`)), rest].join(' ')

/** CMD and ENTRYPOINT as `docker history` shows them. */
function commandText(rest: string, config: ImageConfig): string {
  const words = jsonWords(rest) ?? [...(config.Shell ?? defaultShell), rest]
  return `[${words.map((word) => JSON.stringify(word)).join(' ')}]`
}
