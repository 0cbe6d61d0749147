"""Studies of a rule beside its score, each in processes of its own.

- `scaling`: exponents against T, n and B; `gradients`: cosine, bias and variance against reverse mode
- `gate`: whether a revision is slower or bigger than another; `side`: the process of one of them
- `asv`: a suite of benchmarks for asv, of the rules of a repository
- `process`: a process of its own with its threads pinned, in which to measure
"""
