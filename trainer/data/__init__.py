"""From shards to batches: which samples make which step, and how their bytes come to be tensors."""
