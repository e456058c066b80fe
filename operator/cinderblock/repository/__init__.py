"""Backups in a store: which objects belong to them, which backup needs packs of which, and how to remove a backup.

The operator and the command line share this package. It reads stores and knows no API server.
"""
