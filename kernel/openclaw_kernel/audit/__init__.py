"""The audit log: rows that are only ever added, each chained to the one before, under signed checkpoints."""
