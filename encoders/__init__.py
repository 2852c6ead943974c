"""Tensors in, latents or embeddings out. Nothing here knows of clips, files or jobs."""
