import { defineSuite } from './suite.js'

defineSuite('vm')
