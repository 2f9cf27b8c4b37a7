"""From bytes to priced batches: decode, read in a process of its own, admit, commit in groups."""
