import type { CommandDefinition } from './command.js'

/** A command's module is loaded when the command is used: `hull ps` does not pay for `hull run`. */
interface Entry { summary: string; load: () => Promise<CommandDefinition>; hidden?: boolean }

const lifecycle = () => import('./commands/lifecycle.js')
const lists = () => import('./commands/lists.js')
const system = () => import('./commands/system.js')
const pull = () => import('./commands/pull.js')
const attach = () => import('./commands/attach.js')
const run = () => import('./commands/run.js')

/** Every command by its name. The summaries are here too, so that `hull --help` loads nothing. */
export const commands: Record<string, Entry> = {
  run: { summary: 'Create and run a new container from an image', load: async () => (await run()).runDefinition },
  exec: { summary: 'Execute a command in a running container', load: async () => (await import('./commands/exec.js')).execDefinition },
  ps: { summary: 'List containers', load: async () => (await lists()).psDefinition },
  pull: { summary: 'Download an image from a registry', load: async () => (await pull()).pullDefinition },
  images: { summary: 'List images', load: async () => (await lists()).imagesDefinition },
  explain: { summary: 'Show what really surrounds a running workload', load: async () => (await import('./commands/explain.js')).explainDefinition },
  advise: { summary: 'Say which isolation fits a workload on this host, and why', load: async () => (await import('./commands/advise.js')).adviseDefinition },
  compare: { summary: 'Measure an image as container and VM, and what it costs; show and compare such measurements', load: async () => (await import('./commands/compare.js')).compareDefinition },
  doctor: { summary: 'Check what this machine needs to run containers and VMs', load: async () => (await import('./commands/doctor.js')).doctorDefinition },
  daemon: { summary: 'Run the daemon in the foreground', load: () => Promise.reject(new Error('main hands the daemon its arguments unparsed')) },
  version: { summary: 'Show the Hull version information', load: async () => (await system()).versionDefinition },
  info: { summary: 'Display system-wide information', load: async () => (await system()).infoDefinition },
  attach: { summary: 'Attach to a running container', load: async () => (await attach()).attachDefinition },
  create: { summary: 'Create a new container', load: async () => (await run()).createDefinition },
  history: { summary: 'Show the history of an image', load: async () => (await lists()).historyDefinition },
  import: { summary: 'Import the contents from a tarball to create a filesystem image', load: async () => (await pull()).importDefinition },
  inspect: { summary: 'Return low-level information on containers and images', load: async () => (await import('./commands/inspect.js')).inspectDefinition },
  kill: { summary: 'Kill one or more running containers', load: async () => (await lifecycle()).killDefinition },
  load: { summary: 'Load an image from a tar archive or STDIN', load: async () => (await pull()).loadDefinition },
  logs: { summary: 'Fetch the logs of a container', load: async () => (await import('./commands/logs.js')).logsDefinition },
  pause: { summary: 'Pause all processes within one or more containers', load: async () => (await lifecycle()).pauseDefinition },
  port: { summary: 'List port mappings or a specific mapping for the container', load: async () => (await lifecycle()).portDefinition },
  rename: { summary: 'Rename a container', load: async () => (await lifecycle()).renameDefinition },
  restart: { summary: 'Restart one or more containers', load: async () => (await lifecycle()).restartDefinition },
  rm: { summary: 'Remove one or more containers', load: async () => (await lifecycle()).rmDefinition },
  rmi: { summary: 'Remove one or more images', load: async () => (await lifecycle()).rmiDefinition },
  start: { summary: 'Start one or more stopped containers', load: async () => (await attach()).startDefinition },
  stop: { summary: 'Stop one or more running containers', load: async () => (await lifecycle()).stopDefinition },
  tag: { summary: 'Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE', load: async () => (await lifecycle()).tagDefinition },
  top: { summary: 'Display the running processes of a container', load: async () => (await system()).topDefinition },
  unpause: { summary: 'Unpause all processes within one or more containers', load: async () => (await lifecycle()).unpauseDefinition },
  wait: { summary: 'Block until containers stop, then print their exit codes', load: async () => (await lifecycle()).waitDefinition },
}

/** Docker's management commands: `hull container ls` is `hull ps`. */
export const groups: Record<string, Record<string, string>> = {
  container: {
    attach: 'attach', create: 'create', exec: 'exec', inspect: 'inspect', kill: 'kill', list: 'ps', logs: 'logs', ls: 'ps', pause: 'pause', port: 'port', ps: 'ps',
    rename: 'rename', restart: 'restart', rm: 'rm', run: 'run', start: 'start', stop: 'stop', top: 'top', unpause: 'unpause', wait: 'wait',
  },
  image: { history: 'history', import: 'import', inspect: 'inspect', list: 'images', load: 'load', ls: 'images', pull: 'pull', rm: 'rmi', tag: 'tag' },
  system: { info: 'info' },
}
