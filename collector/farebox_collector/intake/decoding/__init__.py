"""OTLP bodies to spans, in both encodings, by one contract: lazily, within bounds, and never keeping a prompt."""
