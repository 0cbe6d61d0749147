"""From a user's options to the record of what was trained.

- `trial`: everything that decides a number, and its id; `record`: what came of it
- `grid`: trials from options; `settings`: values from text, and the tuned file; `tuning`: points and studies
- `trainer`: trains trials, and yields a record for each; `blocks`: what it asks of a rule, wherever the rule
  is
"""
