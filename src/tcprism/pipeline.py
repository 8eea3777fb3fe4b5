"""Data flow: source -> stages -> sinks."""
