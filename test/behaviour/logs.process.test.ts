import { defineLogs } from './suites/logs.js'

defineLogs('process')
