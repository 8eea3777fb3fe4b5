"""Metrics: what events add up to, for Prometheus and OTLP."""
