"""The manifest: the one object that makes a backup exist. Its parts, its reader and its writer."""
