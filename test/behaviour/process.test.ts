import { defineSuite } from './suite.js'

defineSuite('process')
