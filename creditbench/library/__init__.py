"""The library: what the verbs of the command line do, as calls from Python.

`import creditbench as cb` has these names, and imports a module here once a name of it is needed.

- `running`: `run`; `sources`: a class of a notebook as a file; `progress`: bars
- `checking`: `run_checks`; `measuring`: `measure_scaling`, `measure_gradients`; `tuning`: `tune`
- `asked`: what such a call is given
- `resultset`: `load`, and results as data frames, figures and pages; `meanings`: what their columns mean
- `catalogue`: what there is; `loop`: a rule in a loop of one's own
- `defaults`, `messages`: shared with the command line, and its errors in words of Python
"""
