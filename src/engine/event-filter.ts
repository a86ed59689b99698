import type { EventFilter, Filters } from './api-types.js'
import type { EngineEvent } from './events.js'
import { matchLabels } from './list.js'

/** Actions that carry more than their name ('exec_start: sh -c …'): asked for by the bare name, they match by their beginning (moby). */
const open = new Set(['health_status', 'exec_create', 'exec_start'])

/** An image's name without registry defaults, tag and digest: 'docker.io/library/a:1' → 'a' (reference.FamiliarName). */
function familiar(name: string): string {
  const bare = name.replace(/@.*$/, '').replace(/:[^/:]*$/, '')
  return bare.replace(/^docker\.io\/(library\/)?/, '')
}

/** Docker's filters of events (moby daemon/events/filter.go): values of one key are alternatives, all keys must hold. Names and IDs match by their beginning. */
export function matchesEvent(event: EngineEvent, filters: Filters<EventFilter>): boolean {
  const any = (values: readonly string[] | undefined, test: (value: string) => boolean) => !values || values.length === 0 || values.some(test)
  const { id, attributes } = event.actor
  const name = attributes['name'] ?? ''
  const object = (type: string, values: readonly string[] | undefined) =>
    any(values, (value) => event.type === type && (id.startsWith(value) || name.startsWith(value.replace(/^\//, ''))))
  const image = event.type === 'image' ? name : (attributes['image'] ?? '')
  const fuzzy = filters.event?.some((value) => open.has(value)) ?? false
  return (
    any(filters.type, (value) => event.type === value) &&
    any(filters.event, (value) => event.action === value || (fuzzy && event.action.startsWith(value))) &&
    any(filters.scope, (value) => value === 'local') &&
    any(filters.image, (value) => [id, image, familiar(id), familiar(image)].includes(value)) &&
    // What Hull has no events of (plugin, node, service, secret, config) matches nothing.
    (['container', 'network', 'volume', 'daemon', 'builder', 'plugin', 'node', 'service', 'secret', 'config'] as const).every((type) => object(type, filters[type])) &&
    matchLabels(attributes, filters.label)
  )
}
