"""Logs, and metrics in Prometheus' format.

cluster_state: values that are derived from objects at every reading, so that a restart loses none of them.
operator_metrics, gateway_metrics: durations and counts since the start of the process. exposition: the page with both.
log: JSON lines. docs/guide/observability.md lists the metrics. No label has values that users can create without
creating objects. The series of a volume exist as long as the volume and a VolumeBackup of it; those of a store exist as
long as the BackupStore.
"""
