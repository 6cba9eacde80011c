"""What `security audit` is made of: what checks see, how they are run, and how their fixes are made, recorded and taken back."""
