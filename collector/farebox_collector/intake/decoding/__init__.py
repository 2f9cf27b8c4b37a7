"""Decode OTLP bodies to spans, in both encodings, lazily and within bounds. No prompt is kept."""
