"""The bottom floor: configuration, registry, checkpoints, files, randomness, ShardedTensor."""
