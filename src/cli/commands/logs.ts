import { finished } from 'node:stream/promises'
import type { ContainerDetails } from '../api.js'
import { inPath } from '../client.js'
import { boolFlag, textFlag, type CommandDefinition } from '../command.js'
import { parseTimestamp } from '../format/units.js'
import { Demultiplexer } from '../terminal/demultiplex.js'

/** `hull logs`. */
export const logsDefinition: CommandDefinition = {
  usage: 'logs [OPTIONS] CONTAINER',
  summary: 'Fetch the logs of a container',
  arguments: [1, 1],
  flags: (command) => {
    command.option('--details', 'Show extra details provided to logs')
    command.option('-f, --follow', 'Follow log output')
    command.option('--since <string>', 'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)')
    command.option('-n, --tail <string>', 'Number of lines to show from the end of the logs', 'all')
    command.option('-t, --timestamps', 'Show timestamps')
    command.option('--until <string>', 'Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)')
  },
  run: async ({ client, streams }, flags, [name = '']) => {
    const path = `/containers/${inPath(name)}`
    const details = await client.json<ContainerDetails>('GET', `${path}/json`)
    const moment = (flag: string) => (textFlag(flags, flag) ? parseTimestamp(textFlag(flags, flag)) : undefined)
    const response = await client.send('GET', `${path}/logs`, {
      query: {
        stdout: true, stderr: true, follow: boolFlag(flags, 'follow'), timestamps: boolFlag(flags, 'timestamps'),
        tail: textFlag(flags, 'tail'), since: moment('since'), until: moment('until'), details: boolFlag(flags, 'details'),
      },
    })
    if (details.Config.Tty) {
      response.pipe(streams.stdout, { end: false })
      await finished(response)
    } else {
      const demultiplexer = new Demultiplexer(streams.stdout, streams.stderr)
      await finished(response.pipe(demultiplexer))
    }
    return 0
  },
}
