"""The operator process: watch, queue, gather, decide, execute, write the status.

kopf watches. An event only adds the key of the object that it concerns to one queue; nothing else is kept of it. A
worker takes the key, reads the cluster and the store live (`gather`), lets `lifecycle` decide, executes the decision
(`execute`), and writes the status once if it changed. A slow resync repairs what a missed event left undone.
"""
