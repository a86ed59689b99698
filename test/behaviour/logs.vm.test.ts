import { defineLogs } from './suites/logs.js'

defineLogs('vm')
