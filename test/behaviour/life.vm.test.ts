import { defineLife } from './suites/life.js'

defineLife('vm')
