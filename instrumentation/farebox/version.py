"""The version of the distribution and of its instrumentation scope."""

__version__ = "0.1.0"
