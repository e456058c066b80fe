"""The operator process: watch, queue, reconcile, perform.

kopf watches and tells us that something happened; which object is concerned goes into one queue, and nothing else is
kept. A worker takes a key, reads the world live (`observe`), asks `lifecycle` what to do, performs the actions
(`perform`) and writes the status once if it changed. What a missed event left undone, the slow resync repairs.
"""
