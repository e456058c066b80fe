"""The backup engine: read a volume, store the chunks that are new, and commit by writing the manifest."""
