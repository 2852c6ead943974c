"""Measurements of one clip, a family a file."""
