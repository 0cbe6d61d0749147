"""The asv suite: cost and score of every rule of this repository, from commit to commit."""
