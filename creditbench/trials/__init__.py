"""From a user's options to the record of a training.

- `trial`: all settings that decide a number, and their id; `record`: the result
- `grid`: trials from options; `settings`: values from text, and the tuned file; `tuning`: points and studies
- `trainer`: trains trials, and yields a record for each; `blocks`: its interface to a rule, in this process
  or another
"""
