"""Backups in a store: list, read, verify, rewrap and delete them, and find out which backup needs packs of which.

The operator, the mover and the command line share this package. It uses stores and no API server.
"""
