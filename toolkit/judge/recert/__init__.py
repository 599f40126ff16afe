"""Which node to test again, with what, and why: expected value of a test against what it costs. Pure."""
