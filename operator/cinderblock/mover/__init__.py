"""The program in the mover Job: it runs the backup or the restore engine, and reports the result.

task: what the operator asks for. report: the result of a run. progress: JSON lines on standard output.
"""
