"""Names of this machine: cgroups, containers, the kernel's reasons."""
