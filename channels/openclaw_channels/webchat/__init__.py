"""The channel of WebSocket clients, and the chat page."""
