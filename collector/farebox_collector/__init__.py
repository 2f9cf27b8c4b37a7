"""Prices OpenTelemetry GenAI spans and debits prepaid wallets exactly once. Start reading at `pipeline.py`."""

from farebox_collector import moved

moved.install()
