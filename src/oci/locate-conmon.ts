import { existsSync } from 'node:fs'
import { internal } from '../base/errors.js'

const CONMON = ['/usr/bin/conmon', '/usr/libexec/podman/conmon', '/usr/local/bin/conmon', '/usr/local/libexec/podman/conmon']
let conmonPath: string | undefined

/** Absolute path of conmon. */
export function locateConmon(): string {
  conmonPath ??= CONMON.find((path) => existsSync(path))
  if (!conmonPath) throw internal('conmon is not installed: apt-get install conmon')
  return conmonPath
}
