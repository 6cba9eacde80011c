"""`import openclaw`: from the files of a reference installation to ours. Nothing of the source is changed."""
