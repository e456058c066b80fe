"""A file tree: the walk, files, metadata, and a target made equal to a stream of entries."""
