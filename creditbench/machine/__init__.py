"""This machine and the files on it: what is known of it, and what every room above needs of it.

- `environment`: its fingerprint, which each record holds; `memory`, `threads`: what a process takes of it
- `folders`: where things lie; `files`: one reader and one writer; `revision`: git
- `compilation`: programs that JAX has compiled, kept
"""
