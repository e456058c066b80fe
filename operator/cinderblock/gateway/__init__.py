"""Cinder's REST API in front of the Kubernetes API: stateless, and without rights of its own.

Words of this room. *Operation*: one method on one path of the API, with its schema, answers and policy. *Call*: one
request to an operation. *Caller*: who makes it; what they may do, the API server decides by their own token. *Project*:
Cinder's word for a tenant, here a namespace. *Fault*: Cinder's envelope of an error. *Microversion*: 3.0 to 3.71, asked
for with a header. *View*: what an object of the cluster looks like in Cinder's words.

backups, volumes, snapshots, ...: one file for each resource: its operations. operations: what an operation is. calls:
what it is given and what it gives back. routing: operations as paths below /v2 and /v3. dispatch: everything that is
done before and after an operation. serving: the process.
"""
