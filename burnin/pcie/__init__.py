"""The host link of each GPU: bandwidth, data and link state under load. Measures; never judges."""
