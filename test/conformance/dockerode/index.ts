// Every check of dockerode's behaviour: importing a file declares its checks.
import './containers.js'
import './exec.js'
import './images.js'
import './networks.js'
import './volumes.js'
import './system.js'

export { checks, Context, type Target } from './harness.js'
