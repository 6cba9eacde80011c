"""The control methods: what operators and their tools ask of a running gateway."""
