"""Training: the one step, the one loop, stages with a ledger, checkpoints, and what a network measures."""
