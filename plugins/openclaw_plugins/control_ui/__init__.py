"""Serves a built Control UI from a folder of the user's."""
