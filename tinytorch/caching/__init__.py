"""Keys and values that a model remembers: caches of several kinds, what they cost, and what they are good for."""
