"""Conversations made by program, a module a skill; `conversations.py` beside this folder puts them together.

A skill is `make(draw, held_out) -> Talk`: a new conversation from a random generator. With `held_out` its request is
in a phrasing, and where there are any with names and things, that no other conversation has. The standard library is
enough.
"""
