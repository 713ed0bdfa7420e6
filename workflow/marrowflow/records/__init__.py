"""What ran, on what, with what: the run's record, the lineage of every file, and both as an RO-Crate."""
