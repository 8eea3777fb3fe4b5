"""The version of this tcprism."""

__version__ = "0.1.0"
