"""The asv suite: cost and score of every rule of the registry, from commit to commit."""
