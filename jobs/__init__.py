"""The avdata command and the Ray jobs behind it."""
