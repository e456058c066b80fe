"""Notifications about alerts, for people without Prometheus."""
