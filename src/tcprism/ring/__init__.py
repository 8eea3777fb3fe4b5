"""The rings: mapped, read in bulk, merged by time."""
