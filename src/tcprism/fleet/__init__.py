"""Many hosts in one ClickHouse: its tables, what is inserted there, and what is read back."""
