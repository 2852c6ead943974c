"""The shard format: plan, writer, index, reader, verification."""
