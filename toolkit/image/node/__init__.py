"""What every node's image holds beside its packages: settings (`rootfs`), and the program of its first boot."""
