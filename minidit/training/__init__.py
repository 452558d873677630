"""Minimisation of any loss: batches, draws, shards, and the update."""
