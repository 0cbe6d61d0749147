"""Tasks, learners and cells from all sources.

- `registry`: all plug-ins: shipped, in a user's file, in an installed package
- `importing`: imports a file and checks its content; `contributed`: describes a file by a confined process
  instead
- `meaning`: hashes of the code that decides numbers; `templates`: the files that `creditbench new` writes
"""
