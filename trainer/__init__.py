"""Shards to batches to AVFullDiT to checkpoints and samples. Knows nothing of Ray or raw media."""
