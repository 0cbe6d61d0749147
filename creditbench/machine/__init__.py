"""This machine and its files.

- `environment`: its fingerprint, which each record holds; `memory`, `threads`: use by a process
- `folders`: paths; `files`: one reader and one writer; `revision`: git
- `child`: a child process, and the lines of JSON to it and from it
- `compilation`: a cache of programs that JAX has compiled
"""
