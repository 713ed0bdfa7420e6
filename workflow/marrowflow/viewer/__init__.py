"""A slide that readers zoom into, with what was attended to laid over it: pages that need no network."""
