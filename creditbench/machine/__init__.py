"""This machine and the files on it: what is known of it, and what every room above needs of it.

- `environment`: its fingerprint, which each record holds; `memory`, `threads`: what a process takes of it
- `folders`: where things lie; `files`: one reader and one writer; `revision`: git
- `child`: a process of its own, and the lines of JSON to it and from it
- `compilation`: programs that JAX has compiled, kept
"""
