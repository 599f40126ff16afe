"""The operator's side of rackproof: describe, plan, act, judge, certify and admit a rack."""

__version__ = "0.1.0"
