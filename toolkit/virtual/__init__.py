"""The virtual rack: stand-ins at the hardware boundary, with time lag and named faults. For cli and tests only."""
