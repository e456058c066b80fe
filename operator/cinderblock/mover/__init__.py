"""The program in the Job: it copies a volume into a store, and back.

source: the volume that a backup reads. target: the volume that a restore writes. unit: a run of entries that is read,
hashed and encoded by one worker at a time. leftover: a pack of an earlier run for the same backup. window: a run of
files that is fetched, verified and written by one worker at a time. report: how a run ended.
"""
