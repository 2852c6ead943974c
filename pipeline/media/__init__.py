"""Time-exact media in and out: probe, decode, clips by timestamp, mp4 writing."""
