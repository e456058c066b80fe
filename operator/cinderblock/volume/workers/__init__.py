"""Processes that do a part of the work on a tree: walking it, and creating small files."""
