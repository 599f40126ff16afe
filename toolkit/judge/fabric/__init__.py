"""Fabric as designed against fabric as seen: what differs, and the fewest moves that mend it. Pure: reads nothing."""
