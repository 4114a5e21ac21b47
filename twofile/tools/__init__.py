"""What the model can ask for: drivers of the kernel."""
