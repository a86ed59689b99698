/** Where the daemon listens unless -H or HULL_HOST says otherwise. */
export const DEFAULT_HOST = 'unix:///run/hull/hull.sock'
