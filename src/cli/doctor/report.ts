/** ok; warn: works, but less well or less safely; fail: something that a run needs is missing. */
export type Verdict = 'ok' | 'warn' | 'fail'

/** What one check found. */
export interface Finding {
  name: string
  verdict: Verdict
  /** What is there, or what is wrong. One line. */
  detail: string
  /** What to do about it: a command where there is one. */
  fix?: string
}

const marks: Record<Verdict, string> = { ok: '✓', warn: '!', fail: '✗' }
const colours: Record<Verdict, string> = { ok: '32', warn: '33', fail: '31' }

/** One line a finding, with what to do under those that are not well. */
export function formatFinding(finding: Finding, colour: boolean): string {
  const mark = colour ? `\x1b[${colours[finding.verdict]}m${marks[finding.verdict]}\x1b[0m` : marks[finding.verdict]
  const fix = finding.fix && finding.verdict !== 'ok' ? `    → ${finding.fix}\n` : ''
  return `${mark} ${finding.name}: ${finding.detail}\n${fix}`
}

/** The last line. */
export function summary(findings: readonly Finding[]): string {
  const count = (verdict: Verdict) => findings.filter((finding) => finding.verdict === verdict).length
  const failed = count('fail')
  const warned = count('warn')
  const warnings = warned > 0 ? `, ${warned} warning${warned === 1 ? '' : 's'}` : ''
  if (failed > 0) return `${failed} needed part${failed === 1 ? ' is' : 's are'} missing${warnings}\n`
  return `everything that is needed is there${warnings}\n`
}
