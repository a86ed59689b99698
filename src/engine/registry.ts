import { badRequest, notFound } from '../base/errors.js'
import type { Container } from './container.js'
import { NameRegistry } from './names.js'

/** All containers of this daemon, by ID and by name. */
export class ContainerRegistry {
  readonly names = new NameRegistry()
  readonly #byId = new Map<string, Container>()

  add(container: Container): void {
    this.#byId.set(container.id, container)
  }

  delete(container: Container): void {
    this.#byId.delete(container.id)
    this.names.free(container.record.name, container.id)
  }

  all(): Container[] {
    return [...this.#byId.values()]
  }

  /** By full ID. */
  find(id: string): Container | undefined {
    return this.#byId.get(id)
  }

  /** By full ID, by name, then by unambiguous prefix, in Docker's order. 404 / 400 otherwise. */
  get(reference: string): Container {
    const exact = this.#byId.get(reference)
    if (exact) return exact
    const named = this.names.owner(reference.replace(/^\//, ''))
    if (named !== undefined) {
      const container = this.#byId.get(named)
      if (container) return container
    }
    if (/^[0-9a-f]{1,64}$/.test(reference)) {
      let found: Container | undefined
      for (const [id, container] of this.#byId) {
        if (!id.startsWith(reference)) continue
        if (found) throw badRequest(`Multiple IDs found with provided prefix: ${reference}`)
        found = container
      }
      if (found) return found
    }
    throw notFound(`No such container: ${reference}`)
  }
}
