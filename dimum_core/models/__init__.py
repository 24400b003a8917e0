"""Diffusion models: the process, the networks, the pipelines that sample them, and their folders."""
