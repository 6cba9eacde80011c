"""The gateway protocol: frames, handshake and session without I/O, and the server that does the I/O."""
