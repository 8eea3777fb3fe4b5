"""The current state of connections: from snapshots to rates, and from rates to limits."""
