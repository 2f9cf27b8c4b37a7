"""Periodic jobs: settle, index, retire, replay, retry, send webhooks."""
