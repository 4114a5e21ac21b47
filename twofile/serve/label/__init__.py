"""Labelling: people write ideal answers, choose the better of two and correct what went wrong; all of it is training
data. `store` keeps items and labels, `items` reads and exports them, `agreement` says how far labellers agree, `app`
is the server of the page.
"""
