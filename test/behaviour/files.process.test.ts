import { defineFiles } from './suites/files.js'

defineFiles('process')
