"""Results on disk, and as plain tables.

- `store`: the records of a run, one file each; `shared`: runs that share a folder
- `version`: the published tables, read and written as one
- `columns`: definitions of what is shown; `conditions`: in what the trials of a task differ
- `measured`: scaling, gradients and checks; `rows`: tables written and read
- `runs`: a grid, run or tuned into a folder
- `table`: records as tables for people and for programs
"""
