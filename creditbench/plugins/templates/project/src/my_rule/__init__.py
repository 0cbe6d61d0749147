"""Learning rules for creditbench: a file each, named in pyproject.toml."""
