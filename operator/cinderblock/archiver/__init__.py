"""The backup engine: it reads a volume, stores what is not stored yet, and commits by writing the manifest."""
