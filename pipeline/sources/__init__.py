"""Where raw media lies: naming, listing, reading and copying of sources."""
