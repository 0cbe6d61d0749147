"""Is a learner or a task fit for submission? What `creditbench check` holds it to.

- `contract`, `determinism`, `claims`, `training`: the checks of a learner under one backend; `parity`: under
  both
- `task`: the checks of a task
- `probe`, `subject`: the small cells, batches and noise that they look at it with
- `child`: what runs the contributed code, in a process of its own; `runner`: what starts it and gathers the
  results
"""
