"""The asv suite: how cost and score of every rule of the registry change from commit to commit."""
