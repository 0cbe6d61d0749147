"""Is a learner, a task or a cell fit for submission? The checks of `creditbench check`.

- `contract`, `determinism`, `claims`, `training`: the checks of a learner under one backend; `parity`: under
  both
- `task`: the checks of a task; `cell`: of a cell, under one backend and between both
- `pairs`: which rule goes with which cell
- `probe`, `subject`: the small cells, batches and noise that the checks use
- `child`: the process that runs the contributed code; `runner`: starts it and collects the results
"""
