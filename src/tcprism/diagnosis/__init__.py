"""Connections as they are now: from snapshots to rates, and from those to what limits them."""
