"""One self-contained HTML page about a manifest, shards or a run."""
