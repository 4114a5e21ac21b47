"""Tasks that models are compared on: each a file of its items and its protocol, all scored by the same engine.

Read top-down: `task` (the nouns), `reading` (their files), one file a family of tasks (`choices`, `cloze`, `sums`),
`table` (all of them by name), `scoring` (what the engine says of an item) and `run` (a whole task, resumable).
"""
