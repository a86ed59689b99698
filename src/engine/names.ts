import { randomInt } from 'node:crypto'
import { badRequest, conflict } from '../base/errors.js'

const adjectives = (
  'agile amber ample bold brave breezy bright brisk calm candid clever coastal cobalt crisp daring deft eager early earnest ' +
  'even fair fleet gentle gifted golden grand hardy hearty honest jolly keen kind lively lucid lucky mellow merry modest neat ' +
  'nimble noble patient placid plucky polite proud quick quiet ready robust sage serene sharp silent sincere sleek smart solid ' +
  'sound spry stable steady stoic sturdy sunny swift tidy tranquil trim trusty upbeat valiant vivid warm watchful wise witty zesty'
).split(' ')

// Shipwrights, navigators and oceanographers: the people whom hulls come from.
const people = (
  'ahmose amundsen anson baffin banks bartlett bass beaufort bering bowditch brunel cabot chapman chichester colomb cook cousteau ' +
  'dampier davis drake earle ekman elcano erikson fitzroy flinders franklin froude fulton gama gilbert griffiths hadley harrison ' +
  'henson heyerdahl hudson humboldt ibnmajid ibnbattuta jansson joshee kaiulani knox kon laperouse lawrence macarthur magellan maury ' +
  'mckay mercator mosby nansen noonuccal nordenskjold orlando pascoe phipps piccard pytheas quiros ross sarmiento scoresby shackleton ' +
  'slocum swan tasman tharp thomson tupaia vancouver vespucci walsh watts wegener wright yourkevitch zhenghe'
).split(' ')

const pattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/

const pick = (words: readonly string[]): string => words[randomInt(words.length)]!

/** Container names: unique, in Docker's alphabet, generated where none is given. */
export class NameRegistry {
  readonly #owners = new Map<string, string>()

  /** The container that has this name. */
  owner(name: string): string | undefined {
    return this.#owners.get(name)
  }

  /** Takes `wanted`, or a free generated name when it is ''. 400 for a name outside Docker's alphabet, 409 when it is taken. */
  take(wanted: string, id: string): string {
    const name = wanted.replace(/^\//, '')
    if (name === '') return this.#generate(id)
    if (!pattern.test(name)) {
      throw badRequest(`Invalid container name (${wanted}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`)
    }
    const owner = this.#owners.get(name)
    if (owner !== undefined && owner !== id) {
      throw conflict(
        `Conflict. The container name "/${name}" is already in use by container "${owner}". ` +
          'You have to remove (or rename) that container to be able to reuse that name.',
      )
    }
    this.#owners.set(name, id)
    return name
  }

  /** Frees a name if `id` has it. */
  free(name: string, id: string): void {
    if (this.#owners.get(name) === id) this.#owners.delete(name)
  }

  #generate(id: string): string {
    for (let attempt = 0; ; attempt++) {
      const base = `${pick(adjectives)}_${pick(people)}`
      const name = attempt < 4 ? base : `${base}${randomInt(10 ** Math.min(9, attempt - 3))}`
      if (this.#owners.has(name)) continue
      this.#owners.set(name, id)
      return name
    }
  }
}
