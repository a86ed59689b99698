import { defineNetwork } from './suites/network.js'

defineNetwork('vm')
