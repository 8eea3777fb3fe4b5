"""Sources: what makes batches. Hooks in this kernel, snapshots of its sockets, a recording."""
