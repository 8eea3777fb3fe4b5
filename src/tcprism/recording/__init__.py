"""Recordings: events on disk as one Arrow IPC stream, written batch by batch, read anywhere.

docs/recording.md describes the format. Nothing here needs Linux, root or libbpf.
"""
