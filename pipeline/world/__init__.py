"""A small physical world rendered to mp4 with exact truth beside it."""
