"""The operator's verbs. Thin: parse, call, render."""
