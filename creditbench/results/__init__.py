"""Results on disk, and as plain tables.

- `store`: the records of a run, one file each; `shared`: a run of what is missing, beside others on the same folder
- `version`: the tables that are published, read and written as one
- `table`: records as tables for people and for programs
"""
