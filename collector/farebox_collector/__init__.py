"""Prices OpenTelemetry GenAI spans and debits prepaid wallets exactly once. Start reading at `pipeline.py`."""
