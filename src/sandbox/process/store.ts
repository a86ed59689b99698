/** A container's writable view of its image: what the driver needs of storage/snapshots.ts, injected so that tests may bring their own. */
export interface SnapshotStore {
  /** Where things are, whether they exist or not. `merged` is the mount point. */
  paths(id: string, layers: readonly string[]): MountedSnapshot
  /** Makes the directories; those that exist are kept. */
  prepare(id: string, layers: readonly string[]): Promise<MountedSnapshot>
  mount(snapshot: MountedSnapshot, options?: { volatile?: boolean; owners?: MappedOwners }): Promise<void>
  /** False: it was not mounted. */
  unmount(id: string): boolean
  /** Unmounts, and deletes the writable layer. `later`: moves it aside, and nobody waits for the deletion. */
  remove(id: string, later?: boolean): Promise<void>
}

/** A user namespace (its file), and the host's ids of its root. */
export interface MappedOwners {
  userns: string
  uid: number
  gid: number
}

/** All absolute. */
export interface MountedSnapshot {
  layers: readonly string[]
  upper: string
  work: string
  merged: string
}
