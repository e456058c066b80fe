"""Backups in a store: which objects are theirs, which backup needs whose packs, and how a backup is removed.

The operator and the command line share this room. It reads stores and knows no API server.
"""
