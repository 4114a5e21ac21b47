"""What twofile shows in a browser, on this machine: the labelling page."""
