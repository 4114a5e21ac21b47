"""The pages of the server: one file each, on a few shared pieces (`parts`, `frame`, `markup`) and on the `desk`."""
