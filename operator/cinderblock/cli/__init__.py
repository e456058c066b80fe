"""The command line, for people and for containers.

Each command is a module in ``commands`` with ``add_arguments`` and ``run``. Most commands need no cluster: they work on
a directory, an image or a device of this machine, and on a store.
"""
