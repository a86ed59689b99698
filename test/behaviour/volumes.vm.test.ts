import { volumesSuite } from './suites/volumes.js'

volumesSuite('vm')
