import { onHull } from './hull.js'

await onHull('vm')
