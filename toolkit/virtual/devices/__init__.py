"""What runs on a virtual node in place of GPUs: C libraries and stand-ins of the vendors' programs, packed as .debs.

Nothing here may import from the rest of toolkit: on the node this folder stands alone, on the standard library.
"""
