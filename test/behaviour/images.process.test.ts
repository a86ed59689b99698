import { defineImages } from './suites/images.js'

defineImages('process')
