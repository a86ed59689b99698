import { expect, it } from 'vitest'
import { applyChange } from '../../../src/image/changes.js'
import type { ImageConfig } from '../../../src/image/types.js'

function apply(...lines: string[]): ImageConfig {
  const config: ImageConfig = {}
  for (const line of lines) applyChange(config, line)
  return config
}

it.each<[string[], ImageConfig]>([
  [['CMD ["a", "b c"]'], { Cmd: ['a', 'b c'] }], [['cmd echo $HOME'], { Cmd: ['/bin/sh', '-c', 'echo $HOME'] }], [['ENTRYPOINT ["/x"]'], { Entrypoint: ['/x'] }],
  [['ENV A=1 B="two words" C=a\\ b', 'ENV A=3'], { Env: ['B=two words', 'C=a b', 'A=3'] }], [['ENV KEY some value'], { Env: ['KEY=some value'] }],
  [['LABEL a=b "c d"=e'], { Labels: { a: 'b', 'c d': 'e' } }], [['EXPOSE 80 53/udp 1000-1001'], { ExposedPorts: { '80/tcp': {}, '53/udp': {}, '1000/tcp': {}, '1001/tcp': {} } }],
  [['USER 1000:1000'], { User: '1000:1000' }], [['WORKDIR /a', 'WORKDIR b'], { WorkingDir: '/a/b' }], [['VOLUME /a /b'], { Volumes: { '/a': {}, '/b': {} } }], [['VOLUME ["/a b"]'], { Volumes: { '/a b': {} } }],
  [['STOPSIGNAL SIGINT'], { StopSignal: 'SIGINT' }], [['ONBUILD RUN x'], { OnBuild: ['RUN x'] }],
])('%j', (lines, expected) => expect(apply(...lines)).toEqual(expected))

it.each([
  ['RUN rm -rf /', 'run is not a valid change command'], ['FROM x', 'from is not a valid change command'], ['CMD', 'requires at least one argument'], ['', 'no instructions'],
  ['EXPOSE 99999', 'invalid containerPort'], ['EXPOSE x', 'invalid containerPort'], ['ENV A', 'must have two arguments'], ['ENV A=1 B', "can't find ="], ['LABEL "a=b', 'quote'], ['ENV =x', 'can not be blank'],
])('%j is 400', (line, message) => expect(() => apply(line)).toThrow(expect.objectContaining({ statusCode: 400, message: expect.stringContaining(message) as unknown })))

it('a megabyte of anything is read in a moment', () => {
  const many = Array.from({ length: 100_000 }, (_, i) => i)
  const blanks = ' '.repeat(1_000_000)
  const start = performance.now()
  expect(apply(`USER x${blanks}y${blanks} `)).toEqual({ User: `x${blanks}y` })
  expect(apply('ENV 7=old odd=x', `ENV ${many.map((i) => `${i}=${i}`).join(' ')} 5=last`).Env).toEqual(['odd=x', ...many.filter((i) => i !== 5).map((i) => `${i}=${i}`), '5=last'])
  expect(Object.keys(apply('VOLUME /old', `VOLUME ${many.map((i) => `/${i}`).join(' ')}`).Volumes!)).toHaveLength(100_001)
  expect(() => apply(`EXPOSE ${'1-65535 '.repeat(100_000)}`)).toThrow('EXPOSE has more than 196608 ports')
  expect(Object.keys(apply('EXPOSE 0-65535/udp').ExposedPorts!)).toHaveLength(65_536)
  expect(performance.now() - start).toBeLessThan(15_000) // it would be minutes
}, 30_000)
