"""How any loss is minimised: batches, draws, shards, and the update."""
