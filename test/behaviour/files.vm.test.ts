import { defineFiles } from './suites/files.js'

defineFiles('vm')
