import { textFlag, type CommandDefinition } from '../command.js'
import { runChecks } from '../doctor/checks.js'
import { formatFinding, summary } from '../doctor/report.js'

/** `hull doctor`: Hull's own. Exit code 1 when a needed part is missing. */
export const doctorDefinition: CommandDefinition = {
  usage: 'doctor [OPTIONS]',
  summary: 'Check what this machine needs to run containers and VMs',
  arguments: [0, 0],
  flags: (command) => {
    command.option('--no-boot', 'Do not boot a guest to try KVM')
    command.option('-f, --format <string>', "'json', or readable lines by default")
  },
  run: async ({ client, streams }, flags) => {
    const json = textFlag(flags, 'format') === 'json'
    const colour = Boolean(streams.stdout.isTTY) && !process.env.NO_COLOR
    const findings = await runChecks({ boot: flags.boot !== false }, (found) => {
      if (!json) streams.stdout.write(formatFinding(found, colour))
    })
    if (json) streams.stdout.write(`${JSON.stringify(findings)}\n`)
    else {
      const running = await client.ping().catch(() => false)
      streams.stdout.write(`\n${summary(findings)}${running ? `the daemon answers at ${client.host}` : `the daemon does not run at ${client.host}: hull starts it when it is needed`}\n`)
    }
    return findings.some((found) => found.verdict === 'fail') ? 1 : 0
  },
}
