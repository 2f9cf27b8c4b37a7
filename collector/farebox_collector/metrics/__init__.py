"""Prometheus metrics: `catalogue` declares each once, `meters` counts what happens, `exporter` reads the books."""
