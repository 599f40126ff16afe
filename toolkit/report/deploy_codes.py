"""Codes of the image stage and of the deploy ramdisk: what went wrong between the power button and the first boot."""

from __future__ import annotations

DEPLOY_CODES = {
    "DISK_SIZE_MISMATCH": "The disk with the planned serial has another size than the plan says. Nothing was "
    "written. Correct `size_bytes` in the rack file, or the disk.",
    "DISK_AMBIGUOUS": "Several disks answer to the planned serial or WWN, or one disk is planned for two "
    "purposes. Nothing was written. Name each by what no other one has.",
    "DISK_IN_USE": "The planned disk is mounted, swapped to, or part of an array or a volume in the deploy "
    "ramdisk. Nothing was written.",
    "DISK_TOO_SMALL": "The image does not fit on the planned disk, or on the mirror. None of it was written. Plan "
    "another disk or another image.",
    "DISK_SECTORS": "The planned disk, or its mirror, has sectors of another size than the image counts. Nothing was "
    "written. Format the namespace with sectors of 512 bytes, or plan another disk.",
    "DISK_READBACK": "The disk gave back other bytes than were written to it. It was wiped, and nothing boots "
    "from it. Replace the disk.",
    "ERASE_REFUSED": "The disk takes none of the methods that the profile allows for erasing. Nothing was written.",
    "MANIFEST_UNTRUSTED": "The deploy ramdisk did not find the site's signature on the image's manifest. "
    "Nothing was written. Somebody changed what the server offers.",
    "MANIFEST_WRONG": "The signed manifest is of another image than the boot script names, or says too little "
    "to write it. Nothing was written.",
    "RAID_FAILED": "An array could not be made on the planned disks; the message has mdadm's words. Run bringup "
    "again when the cause is gone.",
    "BOOT_LOOP": "The node boots from the network again and again; each later boot was sent on to the disk, and "
    "the image is not up. Its BMC keeps the boot override.",
    "IMAGE_POWER_LOST": "Power went away while the node was imaged, twice. What is on its disk does not boot or "
    "is not whole: run bringup again.",
    "DEPLOY_SILENT": "The node fetched its boot script and then said nothing: kernel or ramdisk did not come "
    "up, or had no network. Look at its console.",
    "NETWORK_BOOT_ABSENT": "The node was told to boot from the network and never fetched its boot script. Its "
    "BMC ignored the override, or another DHCP server answered.",
}
