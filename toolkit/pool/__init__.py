"""The training pool a certified node is admitted to."""
