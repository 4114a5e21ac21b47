"""The report card of a model: where it comes from, what each stage took, and what each made better or worse."""
