"""What a person types, and what a container starts.

command: one subcommand, in a module of its own with ``add_arguments`` and ``run``. by hand: without a cluster, on
whatever directory, image or device this machine has. catalog: the backups that a store holds, read from the store.
"""
