"""Cinder's REST API in front of the Kubernetes API: stateless, and without rights of its own.

A *project* is Cinder's tenant, here a namespace. The *caller* sends a Kubernetes token, and the API server decides what
they may do. An *operation* is one method on one path, with its schemas and policy. A *fault* is Cinder's envelope of an
error. A *microversion* is a version from 3.0 to 3.71, selected by a header. A *view* is an object in Cinder's form.

rest: what all resources share. resources: one package per resource. keystone: a login for OpenStack clients. auth: the
callers. server: the HTTP servers. main: the process.
"""
