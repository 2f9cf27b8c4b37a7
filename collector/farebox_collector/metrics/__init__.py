"""Prometheus metrics: `catalogue` declares each once, `meters` counts in this process, `exporter` reads the books."""
