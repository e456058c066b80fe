"""What to do next. Pure: no clock, no I/O, no environment.

world: everything that was seen of one object and its surroundings, read live. verdict: what a check says: go on, wait,
or end in error. decision: the actions to perform now, the status to report, and when to look again. The same world and
the same instant always give the same decision, so performing one twice is harmless.

backups, deletion, restores, stores: one ``decide`` for each kind of object and stage. checks: the rules, each a
function of the world. objects: the children that we create, as plain data.
"""
