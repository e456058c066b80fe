"""The program in the mover Job: it backs up, restores, verifies or copies, and reports the result.

task: what the operator asks for. report: the result of a run. progress: JSON lines on standard output.
"""
