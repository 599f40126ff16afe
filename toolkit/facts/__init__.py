"""A fact is a command and a pure parser of its untrusted output. Reads; never changes, never judges."""
