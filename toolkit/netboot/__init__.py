"""The network boot service: DHCP, boot scripts served once, and what nodes post back. Knows no stage and no verdict."""
