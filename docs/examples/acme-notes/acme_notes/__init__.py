"""Notes in a file, and a check that nobody else reads them."""
