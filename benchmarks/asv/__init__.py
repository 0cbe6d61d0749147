"""The asv suite: cost and score of every shipped rule, from commit to commit."""
