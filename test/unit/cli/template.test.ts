import { PassThrough } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { Client } from '../../../src/cli/client.js'
import { runCommand } from '../../../src/cli/command.js'
import { inspectDefinition } from '../../../src/cli/commands/inspect.js'
import { ApiError, CliError } from '../../../src/cli/errors.js'
import { compileTemplate } from '../../../src/cli/template/evaluate.js'

const render = (source: string, dot: unknown) => compileTemplate(source)(dot)
const container = {
  Id: 'abc', Name: '/web', State: { Running: true, ExitCode: 7, Health: null }, Args: ['-c', 'echo'],
  NetworkSettings: { Networks: { one: { IPAddress: '10.0.0.1' }, two: { IPAddress: '10.0.0.2' } } },
  Config: { Labels: { 'a.b/c': 'x', z: '' }, Env: ['A=1', 'B=2'] }, HostConfig: { Memory: 536870912, NanoCpus: 1.5e9 },
}

describe('templates', () => {
  it.each<[string, string]>([
    ['{{.Id}}', 'abc'],
    ['{{.State.ExitCode}} {{.State.Running}}', '7 true'],
    ['{{ .HostConfig.Memory }}', '536870912'],
    ['{{json .Args}}', '["-c","echo"]'],
    ['{{json .State.Health}}', 'null'],
    ['{{.Args}}', '[-c echo]'],
    ['{{.Config.Labels}}', 'map[a.b/c:x z:]'],
    ['{{index .Config.Labels "a.b/c"}}', 'x'],
    ['{{index .Config.Labels "none"}}', ''],
    ['{{index .Args 1}}', 'echo'],
    ['{{(index .NetworkSettings.Networks "two").IPAddress}}', '10.0.0.2'],
    ['{{range .Args}}<{{.}}>{{end}}', '<-c><echo>'],
    ['{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}} {{end}}', 'one=10.0.0.1 two=10.0.0.2 '],
    ['{{range $i, $e := .Args}}{{if $i}}, {{end}}{{$e}}{{end}}', '-c, echo'],
    ['{{range .Config.Labels}}{{$.Id}}{{end}}', 'abcabc'],
    ['{{range $x := .Args}}{{$x}}{{else}}none{{end}}', '-cecho'],
    ['{{if .State.Running}}up{{else}}down{{end}}', 'up'],
    ['{{if not .State.Running}}a{{else if eq .State.ExitCode 7}}b{{else}}c{{end}}!', 'b!'],
    ['{{with .State.Health}}{{.Status}}{{else}}no health{{end}}', 'no health'],
    ['{{with .State}}{{.ExitCode}}{{end}}', '7'],
    ['{{join .Config.Env ","}}', 'A=1,B=2'],
    ['{{.Config.Env | json | upper}}', '["A=1","B=2"]'],
    ['{{index (split (index .Config.Env 1) "=") 1}}', '2'],
    ['{{slice .Name 1}}', 'web'],
    ['{{truncate .Name 2}}{{pad "x" 1 2}}|', '/w x  |'],
    ['{{printf "%s-%05d %q %.2s" .Id 42 .Name .Id}}', 'abc-00042 "/web" ab'],
    ['{{$n := len .Args}}{{$n}}', '2'],
    ['{{/* nothing */}}x', 'x'],
    ['a {{- " b " -}} c', 'a b c'],
    ['{{"{{"}} `{{`}}`}}', '{{ `}}'],
    ['{{or .State.Health "none"}} {{and .State.Running .Id}}', 'none abc'],
    ['{{if and (gt .State.ExitCode 3) (lt .State.ExitCode 9)}}y{{end}}', 'y'],
    ['{{if and .State.Health .Name}}y{{else}}n{{end}} {{json (and .State.Health .Name)}} {{json (or 0 .State.Health)}}', 'n null null'],
    ['{{and .State.Health .State.Health.Status | json}} {{or .Name .Nope}} {{and .Id .Name}} {{or "" .Id}}', 'null /web /web abc'],
    ['{{.Name | and .Id}}', '/web'],
    ['no action', 'no action'],
    ['{{title "hello world"}} {{lower "ABC"}}', 'Hello World abc'],
  ])('%s', (source, want) => {
    expect(render(source, container)).toBe(want)
  })

  it.each<[string, RegExp]>([
    ['{{.ID', /template parsing error: template: :1: unclosed action/],
    ['{{end}}', /unexpected \{\{end\}\}/],
    ['{{if .Id}}x', /unexpected EOF/],
    ['{{else}}', /unexpected \{\{else\}\}/],
    ['{{if .Id}}{{else}}{{else}}{{end}}', /unexpected \{\{else\}\}/],
    ['{{}}', /missing value for command/],
    ['{{nope .Id}}', /function "nope" not defined/],
    ['{{constructor}}', /function "constructor" not defined/],
    ['{{.Nope}}', /map has no entry for key "Nope"/],
    ['{{.constructor}}', /map has no entry for key "constructor"/],
    ['{{.State.Health.Status}}', /nil pointer evaluating \.Status/],
    ['{{$x}}', /undefined variable "\$x"/],
    ['{{(.Id}}', /unclosed left paren/],
    ['{{.Id | .Name}}', /non executable command in pipeline/],
    ['{{index .Args 9}}', /index out of range: 9/],
    ['{{.Id "x"}}', /can't give argument to non-function/],
    ['{{#}}', /unexpected "#" in operand/],
    ['{{join .Id ","}}', /error calling join: not a list/],
  ])('%s is refused', (source, why) => {
    expect(() => render(source, container)).toThrow(why)
  })

  it('never loops or crashes on random input', () => {
    const words = ['{{', '}}', '.Id', ' ', 'range', 'if', 'end', 'else', '(', ')', '|', '"', '`', '$x', ':=', 'json', '-', '3', '\\', ',']
    let seed = 1
    for (let n = 0; n < 3000; n += 1) {
      let source = ''
      for (let i = 0; i < 12; i += 1) source += words[(seed = (seed * 1103515245 + 12345) % 2147483648) % words.length]
      try {
        render(source, container)
      } catch (error) {
        expect(error, source).toBeInstanceOf(CliError)
      }
    }
  })
})

describe('inspect -f', () => {
  /** A daemon with the container `web`, without a health check, and `sick`, which has one; and the image `image`. */
  const objects: Record<string, unknown> = {
    '/containers/web/json': {
      Id: 'abc', State: { Running: true }, Config: { Labels: {} }, HostConfig: { Binds: null }, Mounts: [{ Type: 'bind', Source: '/x' }],
      NetworkSettings: { Networks: { one: { IPAMConfig: null }, two: { IPAMConfig: { IPv4Address: '10.0.0.2' } } } },
    },
    '/containers/sick/json': { Id: 'def', State: { Health: { Status: 'starting' } }, Config: { Healthcheck: { Test: ['NONE'] }, StopSignal: 'INT' }, HostConfig: {}, Mounts: [] },
    '/images/image/json': { Id: 'sha256:1', Config: {} },
  }
  async function inspect(...argv: string[]) {
    const client = new Client('unix:///nowhere')
    client.json = <T>(_method: string, path: string): Promise<T> =>
      Object.hasOwn(objects, path) ? Promise.resolve(structuredClone(objects[path]) as T) : Promise.reject(new ApiError(404, 'none'))
    const streams = { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough() }
    const code = await runCommand('inspect', inspectDefinition, argv, { client, streams })
    return { code, out: String(streams.stdout.read() ?? ''), err: String(streams.stderr.read() ?? '') }
  }
  it.each<[string, string]>([
    ['{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}', 'none\nstarting\n'],
    ['{{.ID}} {{.Id}}', 'abc abc\ndef def\n'],
    ['{{json .Config.ExposedPorts}}{{json .Config.Healthcheck}}{{.Config.StopSignal}}', 'nullnull\nnull{"Test":["NONE"]}INT\n'],
    ['{{with .Config.Healthcheck}}{{.Retries}}{{end}}{{range .HostConfig.Mounts}}m{{end}}{{len .HostConfig.Tmpfs}}', '0\n00\n'],
    ['{{range .Mounts}}[{{.Name}}{{.Source}}]{{end}}', '[/x]\n\n'],
    // What was filled in is no part of the JSON.
    ['{{json .State}}', '{"Running":true}\n{"Health":{"Status":"starting"}}\n'],
  ])('%s', async (format, out) => {
    expect(await inspect('-f', format, 'web', 'sick')).toEqual({ code: 0, out, err: '' })
  })
  it('has the fields of the addresses and of an image', async () => {
    expect((await inspect('-f', '{{range .NetworkSettings.Networks}}{{with .IPAMConfig}}{{.IPv4Address}}|{{.IPv6Address}}{{end}}{{end}}', 'web')).out).toBe('10.0.0.2|\n')
    expect(await inspect('-f', '{{.ID}}{{.Variant}}{{json .Config.Healthcheck}}', 'image')).toEqual({ code: 0, out: 'sha256:1null\n', err: '' })
  })
  it('goes on after a template that fails for one name, with code 1', async () => {
    const { code, out, err } = await inspect('-f', '{{.State.Health.Status}}', 'web', 'sick', 'absent')
    expect([code, out]).toEqual([1, 'starting\n'])
    expect(err).toMatch(/^template: .*nil pointer evaluating \.Status\nError: No such object: absent\n$/)
    await expect(inspect('-f', '{{.Id', 'web')).rejects.toMatchObject({ exitCode: 64 })
  })
  it('prints JSON as the daemon sent it', async () => {
    expect(JSON.parse((await inspect('web')).out)).toEqual([objects['/containers/web/json']])
  })
})
