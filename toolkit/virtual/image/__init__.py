"""What runs inside the machines: the ramdisk's init, the image's settings, first boot. Imports nothing of ours."""
