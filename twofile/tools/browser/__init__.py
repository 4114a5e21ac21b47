"""The browser: reads a page of the web for the model, and reaches nothing but the public web."""
