"""Processes of our own that do a part of the work on a tree."""
