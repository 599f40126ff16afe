"""The virtual rack: stand-ins at the hardware boundary, with time lag and named faults. Imported by cli and tests only."""
