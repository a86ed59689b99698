import { describe, expect, it } from 'vitest'
import { readCompose, writeIsolation } from '../../../src/advise/compose.js'
import { factsOfInfo } from '../../../src/advise/facts.js'
import { formatAdvice } from '../../../src/advise/report.js'
import { judge } from '../../../src/advise/judge.js'

const asked = { trust: 'own' as const, kernel: '', modules: false, io: 'light' as const, startBudget: null, instances: 1 }
const read = (text: string) => readCompose(text, asked)
const needsOf = (yaml: string) => read(`services:\n  s:\n${yaml.replace(/^/gm, '    ')}\n`).services[0]!.needs

const text = `# the application
services:
  web: # outside
    image: web   # ours
    ports: ["80:80"]
    isolation: "process"  # for now

  # runs uploads
  worker:
    # keep this comment
    image: worker
    x-hull: { trust: tenant }
    deploy: { replicas: 3 }
    volumes:
    - ./up:/up
    - type: volume
      source: data
      target: /d
volumes: { data: }
`

describe('a Compose file', () => {
  it('says what each service needs', () => {
    const [web, worker] = read(text).services
    expect(web).toMatchObject({ name: 'web', isolation: 'process', needs: { trust: 'own', ports: 1 } })
    expect(worker!.needs).toMatchObject({ trust: 'tenant', instances: 3, binds: ['./up'], volumes: ['data'] })
  })
  it('takes isolation lines and keeps every other byte', () => {
    const written = writeIsolation(read(text), new Map([['web', 'vm'], ['worker', 'vm']]))
    expect(written).toBe(text.replace('"process"', 'vm').replace('    # keep this comment\n    image: worker', '    # keep this comment\n    isolation: vm\n    image: worker'))
    expect(read(written).services.map((service) => service.isolation)).toEqual(['vm', 'vm'])
    expect(writeIsolation(read(written), new Map([['web', 'vm'], ['worker', 'vm']]))).toBe(written)
  })
  it('keeps CRLF, a byte order mark and other indents, and fills an empty isolation', () => {
    const crlf = '\ufeffservices:\r\n   a:\r\n      image: x\r\n   b:\r\n         image: y\r\n         isolation:\r\n'
    expect(writeIsolation(read(crlf), new Map([['a', 'vm'], ['b', 'process']])))
      .toBe('\ufeffservices:\r\n   a:\r\n      isolation: vm\r\n      image: x\r\n   b:\r\n         image: y\r\n         isolation: process\r\n')
  })
  it('writes the chosen services alone, and one that merges another', () => {
    const merged = 'x-base: &base\n  image: x\n  isolation: process\nservices:\n  a:\n    <<: *base\n  b: { image: y }\n  c: &c\n    image: z\n  d:\n    <<: *c\n'
    expect(writeIsolation(read(merged), new Map([['a', 'vm'], ['c', 'vm'], ['d', 'process']])))
      .toBe('x-base: &base\n  image: x\n  isolation: process\nservices:\n  a:\n    isolation: vm\n    <<: *base\n  b: { image: y }\n  c: &c\n    isolation: vm\n    image: z\n  d:\n    isolation: process\n    <<: *c\n')
  })
  it.each([
    ['services: { a: { image: x } }', /not a block of lines/],
    ['x: &s\n  image: x\nservices:\n  a: *s\n', /not a block of lines/],
    ['services:\n  a:\n    &k image: x\n', /line of its own/],
    ['services:\n  a:\n    image: x\n    isolation: ${ISOLATION:-process}\n', /not a plain word/],
    ['services:\n  a:\n    isolation: &i process\n    image: x\n    labels: { was: *i }\n', /not a plain word/],
    // what follows it merges it: a line for one would be a line for both
    ['services:\n  a: &a\n    image: x\n  b:\n    <<: *a\nx-c:\n  <<: *z\n'.replace('*z', '*a'), /change something else/],
  ])('refuses to write where no line fits: %s', (source, message) => {
    expect(() => writeIsolation(read(source), new Map([['a', 'vm']]))).toThrow(message)
  })
  it('reads what a VM refuses, in every form that Compose has', () => {
    expect(needsOf('network_mode: host\npid: service:x\nipc: "container:y"\ncgroup: host\nuts: host').namespaces).toEqual(['--pid service:x', '--ipc container:y', '--uts host', '--cgroupns host', '--network host'])
    expect(needsOf('devices: ["/dev/fuse:/dev/fuse:rwm", { source: /dev/dri, target: /dev/dri }]\ndevice_cgroup_rules: ["c 1:3 r"]').devices).toEqual(['device /dev/fuse', 'device /dev/dri', "device rule 'c 1:3 r'"])
    expect(needsOf('runtime: runsc\nsecurity_opt: ["seccomp:./s.json", "seccomp:unconfined", "no-new-privileges:true"]').processOnly).toEqual(['runtime runsc', 'a seccomp profile of its own'])
    expect(needsOf('volumes: ["/a:/b:ro,rshared", { type: bind, source: /c, target: /d, bind: { propagation: shared } }, "data:/e", "/anonymous", { type: tmpfs, target: /t }, "/var/run/docker.sock:/var/run/docker.sock"]'))
      .toMatchObject({ processOnly: ['the mount /a:/b:ro,rshared', 'the mount of /c'], binds: ['/a', '/c', '/var/run/docker.sock'], volumes: ['data'], engineSockets: ['/var/run/docker.sock'] })
    expect(needsOf('privileged: true\ncap_add: [CAP_SYS_ADMIN, net_raw]\nscale: 7')).toMatchObject({ privileged: true, capabilities: ['SYS_ADMIN', 'NET_RAW'], instances: 7 })
    expect(needsOf('x-hull: { trust: team, kernel: 6.1, modules: true, io: disk, start_budget_ms: 200 }')).toMatchObject({ trust: 'team', kernel: '6.1', modules: true, io: 'disk', startBudget: 200 })
  })
  it('says what the file says now, where that is something else', () => {
    const file = read('services:\n  a: { image: x, isolation: HyperV }\n  b: { image: x, isolation: process }\n  c: { image: x, isolation: default }\n')
    expect(file.services.map(({ needs }) => needs.now)).toEqual(['vm', 'process', ''])
    const shown = formatAdvice(file.services.map(({ needs }) => judge(needs, factsOfInfo({}))))
    expect(shown.match(/^\w.*isolation.*$/gm)).toEqual(['a: --isolation=process (now vm)', 'b: --isolation=process', 'c: --isolation=process'])
  })
  it('a service whose network another one joins cannot be a VM', () => {
    const [web, side] = read('services:\n  web: { image: w }\n  side: { image: s, network_mode: "service:web" }\n').services
    expect(web!.needs.namespaces).toEqual(['side joins a namespace of it'])
    expect(side!.needs.namespaces).toEqual(['--network service:web'])
  })
  it('says what it did not read', () => {
    expect(needsOf('extends: { service: other }').unread).toHaveLength(1)
    expect(needsOf('cap_add: ["${CAPS}"]').unread.join()).toMatch(/cap_add: variables/)
    expect(needsOf('image: "a:${TAG}"').unread).toEqual([])
    expect(() => needsOf('privileged: "${P}"')).toThrow(/services\.s\.privileged: .*docker compose config/)
  })
  it.each([
    ['a: [', /at line 1/],
    ['', /services must be a mapping/],
    ['web:\n  image: x\n', /services must be a mapping/],
    ['services: 3', /services must be a mapping/],
    ['services: {}', /no service/],
    ['services:\n  a: 7\n', /services\.a: /],
    ['services:\n  a:\n    privileged: "yes"\n', /services\.a\.privileged: /],
    ['services:\n  a:\n    volumes: 5\n', /services\.a\.volumes: /],
    ['services:\n  a:\n    x-hull: { trust: me }\n', /services\.a\.x-hull\.trust: /],
    ['services:\n  a: {}\n  a: {}\n', /unique/],
    [`# ${'x'.repeat(1 << 20)}\n`, /larger than/],
    [`a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'.split('').map((name, i) => `${name}: &${name} [${Array(9).fill(`*${'abcdefgh'[i]}`).join(',')}]`).join('\n')}\nservices: { s: { image: x } }\n`, /alias/i],
  ])('names what is wrong: %.40s', (source, message) => {
    expect(() => read(source)).toThrow(message)
  })
  it('a hostile name does not move the cursor, nor is it taken for a property of objects', () => {
    const file = read('services:\n  "\\e[2Ja": { image: x }\n  __proto__: { privileged: true }\n')
    const shown = formatAdvice(file.services.map(({ needs }) => judge(needs, factsOfInfo({}))))
    expect(shown).not.toContain('\u001b')
    expect(shown).toContain('?[2Ja: ')
    expect(({} as { privileged?: boolean }).privileged).toBeUndefined()
  })
})
