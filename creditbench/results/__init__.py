"""Results on disk, and as plain tables.

- `store`: the records of a run, one file each; `shared`: a run of what is missing, beside others on the same
  folder
- `version`: the tables that are published, read and written as one
- `columns`: what is shown, a definition each; `conditions`: in what trials of a task differ
- `measured`: scaling, gradients and checks; `rows`: how tables are written and read
- `runs`: a grid run, or tuned, into a folder
- `table`: records as tables for people and for programs
"""
