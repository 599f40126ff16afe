"""A node as a QEMU machine: real firmware, kernel and disk behind the virtual rack's BMC. No fake devices here."""
