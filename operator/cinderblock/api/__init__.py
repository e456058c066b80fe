"""The API: pydantic models and enums without I/O or clock.

v1alpha1: our kinds, such as `VolumeBackup`, `VolumeRestore` and `BackupStore`. crd: their CustomResourceDefinitions.
mover: the task that the operator gives to a mover, and the report that the mover returns. kubernetes: the fields of
Kubernetes' own objects that decisions need. labels: names, labels, annotations and finalizers. layout: keys of objects
in a store. conditions, losses, origin, pins: parts that several models share. duration, quantity: Kubernetes' formats.
"""
