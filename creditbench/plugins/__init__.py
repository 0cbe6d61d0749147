"""Tasks and learners, wherever they come from.

- `registry`: what there is: shipped, in a user's file, in an installed package
- `importing`: one file imported, and what it must hold; `contributed`: one described by a confined process
  instead
- `templates`: what `creditbench new` writes
"""
