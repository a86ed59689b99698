import type { Figure } from '../types.js'
import { fioJobs, iperfReceived, perfBench, qperfLatency, sysbenchCpu, sysbenchMemory, wrkRequests } from './parse.js'

type FigureHead = Pick<Figure, 'id' | 'title' | 'unit' | 'better'>

/** One run of one tool, and the figures that come of it. */
export interface Probe {
  /** For a person who waits. */
  name: string
  /** Seconds of one run, about: shares of the time are by it. */
  seconds: number
  /** The first one says whether enough is known. */
  figures: readonly [FigureHead, ...FigureHead[]]
  /** Where the tool runs: in the instance, or on the host against a server in the instance. */
  side: 'instance' | 'client'
  /** `cpu`: a processor that it may use; `address`: where the server is; `slow`: a system call takes some 200 µs (gVisor by ptrace), so that fewer of them are a second. */
  words: (at: { cpu: number; address: string; slow: boolean }) => string[]
  parse: (stdout: string) => Record<string, number>
}

/** Servers in every instance for as long as it is measured: nobody waits for their start. */
export const SERVERS = {
  throughput: ['iperf3', '--server', '--port', '5201'], latency: ['qperf', '--listen_port', '19765'], requests: ['nginx', '-e', 'stderr', '-c', '/etc/hull-probe.conf'],
} as const satisfies Record<string, readonly string[]>

/** A file of the instance's own writable layer; in all it is what the data root's file system and, in a VM, the disk before it let through. */
const FILE = ['--directory=/tmp', '--filename=hull-probe', '--size=64m']
/** Half a second each: five of them are a run. */
const FIO = ['fio', '--output-format=json', ...FILE, '--ioengine=psync', '--direct=1', '--time_based', '--runtime=500ms']
const JOBS = [
  ['sequential-write', '--rw=write', '--bs=1m'], ['sequential-read', '--rw=read', '--bs=1m'], ['random-read', '--rw=randread', '--bs=4k'], ['random-write', '--rw=randwrite', '--bs=4k'],
  ['fsync', '--rw=write', '--bs=4k', '--direct=0', '--fsync=1'],
] as const

function disk(stdout: string): Record<string, number> {
  const jobs = fioJobs(stdout)
  return Object.fromEntries(JOBS.map(([name]) => {
    const said = jobs.get(name)
    const value = said && (name === 'fsync' ? said.fsync : name.startsWith('sequential') ? said.megabytes : said.operations)
    if (!value) throw new Error(`fio says nothing of its job ${name}`)
    return [`disk-${name}`, value]
  }))
}

/** All with one thread, as a VM has one processor unless somebody wants more. */
export const PROBES: readonly Probe[] = [
  {
    name: 'processor', seconds: 1.2, side: 'instance', words: () => ['sysbench', 'cpu', '--threads=1', '--time=1', 'run'], parse: (text) => ({ cpu: sysbenchCpu(text) }),
    figures: [{ id: 'cpu', title: 'primes up to 10000 (sysbench)', unit: 'events/s', better: 'more' }],
  },
  {
    // Larger than most caches.
    name: 'memory', seconds: 1.2, side: 'instance', words: () => ['sysbench', 'memory', '--threads=1', '--memory-block-size=64M', '--memory-total-size=1000G', '--time=1', 'run'],
    parse: (text) => ({ 'memory-bandwidth': sysbenchMemory(text) }), figures: [{ id: 'memory-bandwidth', title: 'memory written (sysbench)', unit: 'MB/s', better: 'more' }],
  },
  {
    name: 'system calls', seconds: 0.5, side: 'instance', words: ({ slow }) => ['perf', 'bench', 'syscall', 'basic', '--loop', slow ? '3000' : '1000000'], parse: (text) => ({ syscall: perfBench(text) }),
    figures: [{ id: 'syscall', title: 'system calls, getppid (perf bench)', unit: 'ops/s', better: 'more' }],
  },
  {
    // On one processor: between two, it is a question of which two.
    name: 'context switches', seconds: 0.5, side: 'instance', words: ({ cpu, slow }) => ['taskset', '--cpu-list', String(cpu), 'perf', 'bench', 'sched', 'pipe', '--loop', slow ? '500' : '20000'],
    parse: (text) => ({ 'context-switch': perfBench(text) }), figures: [{ id: 'context-switch', title: 'switches to another process and back (perf bench)', unit: 'ops/s', better: 'more' }],
  },
  {
    name: 'disk', seconds: 4, side: 'instance', words: () => [...FIO, ...JOBS.flatMap(([name, ...words], index) => [`--name=${name}`, ...(index > 0 ? ['--stonewall'] : []), ...words])], parse: disk,
    figures: [
      { id: 'disk-random-read', title: 'random reads of 4 KiB (fio)', unit: 'ops/s', better: 'more' }, { id: 'disk-random-write', title: 'random writes of 4 KiB (fio)', unit: 'ops/s', better: 'more' },
      { id: 'disk-sequential-read', title: 'sequential read (fio)', unit: 'MB/s', better: 'more' }, { id: 'disk-sequential-write', title: 'sequential write (fio)', unit: 'MB/s', better: 'more' },
      { id: 'disk-fsync', title: 'fsync after 4 KiB, median (fio)', unit: 'us', better: 'less' },
    ],
  },
  {
    // Not the first second: TCP's window grows in it, and an emulator translates what it runs.
    name: 'network throughput', seconds: 2.2, side: 'client', words: ({ address }) => ['iperf3', '--client', address, '--port', '5201', '--omit', '1', '--time', '1', '--reverse', '--json', '--interval', '0'],
    parse: (text) => ({ 'network-throughput': iperfReceived(text) }), figures: [{ id: 'network-throughput', title: 'TCP to the host (iperf3)', unit: 'Mbit/s', better: 'more' }],
  },
  {
    name: 'network latency', seconds: 1.2, side: 'client', words: ({ address }) => ['qperf', '--listen_port', '19765', '--time', '1', '--msg_size', '1', '-uu', address, 'tcp_lat'],
    parse: (text) => ({ 'network-latency': qperfLatency(text) }), figures: [{ id: 'network-latency', title: 'one byte, one way (qperf)', unit: 'us', better: 'less' }],
  },
  {
    name: 'network requests', seconds: 1.2, side: 'client', words: ({ address }) => ['wrk', '--threads', '1', '--connections', '8', '--duration', '1s', `http://${address}:8080/`],
    parse: (text) => ({ 'network-requests': wrkRequests(text) }), figures: [{ id: 'network-requests', title: 'HTTP requests, 8 connections (wrk, nginx)', unit: 'requests/s', better: 'more' }],
  },
]
