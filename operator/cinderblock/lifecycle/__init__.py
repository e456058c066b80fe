"""Decide what to do next. Pure: no clock, no I/O, no environment.

observed: the state of one object and of everything around it, read live. verdicts: the result of a check: pass, wait,
or fail. actions: a decision, which is the actions to execute now, the status to write, and when to reconcile again. The
same state at the same instant always gives the same decision, so executing a decision twice is harmless.

backup, restore, store: one ``decide`` for each kind, and the checks that it applies in order. mover: the Job that
copies data. operation: what the decisions about backups and restores share. volume_lock: one operation per volume.
children: the objects that the operator creates, as plain data.
"""
