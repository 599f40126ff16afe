"""Binds a verdict to serials, firmware and topology, signs it, verifies it offline. Pure but for keys."""
