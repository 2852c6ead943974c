"""From raw media to a manifest and from a manifest to shards. Knows nothing of Ray or the model."""
