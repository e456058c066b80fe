"""Volumes of mode Filesystem: the walk, files and their metadata, and a target that a stream of entries updates."""
