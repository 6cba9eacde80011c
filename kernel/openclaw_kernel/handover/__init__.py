"""What one process of the gateway leaves to the next: the listening sockets and the lock, which are not closed in between."""
