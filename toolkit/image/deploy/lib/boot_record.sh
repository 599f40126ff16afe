# shellcheck shell=sh
# What makes a disk bootable is its first sector: without it no BIOS finds a boot record, and no UEFI firmware and no
# kernel believes a GPT (UEFI 2.10, 5.2.3: the protective MBR). It is taken away first and written last: a machine that
# loses its power in between, whatever it boots next, boots nothing from this disk.

head_bytes=4096 # one write to every disk: whole, or not at all

# zero DEVICE OFFSET: a MiB from there on; up to the end where less is left.
zero() {
    dd.coreutils if=/dev/zero of="$1" bs=64K count=16 oflag=seek_bytes seek="$2" conv=notrunc,fsync 2>/dev/null
}

# What is there now must never boot: both ends of the disks, and of their mirror, because a GPT has a copy at the end.
wipe() {
    sync
    # shellcheck disable=SC2086  # one word a disk
    for one in $(printf '%s\n' "$disk" $boot_disks | sort -u); do
        bytes=$(bytes_of "$one")
        zero "$one" 0
        [ "$bytes" -lt 1048576 ] || zero "$one" "$((bytes - 1048576))"
    done
    sync
}

# Where the kernel tells of a block device.
device_folder() {
    numbers=$(stat -L -c '%t %T' "$1")
    printf '/sys/dev/block/%d:%d' "0x${numbers% *}" "0x${numbers#* }"
}

# Whether the disk zeroes blocks by a command of its own (NVMe Write Zeroes, SCSI WRITE SAME). For one that has none,
# `blkdiscard -z` succeeds as well, because the kernel then writes every zero.
zeroes_by_itself() {
    most=$(cat "$(device_folder "$1")/queue/write_zeroes_max_bytes" 2>/dev/null)
    [ "${most:-0}" -gt 0 ]
}

# A sparse write is right only where the disk reads as zeros: after overwriting; on a loop device after a discard (its
# file gets holes, and stays small); on any other where the image will lie, by the disk's own command. A discard
# promises nothing there.
clear_disk() {
    sparse=
    if reads_as_zeros; then
        sparse=sparse,
    else
        say "$disk cannot be zeroed at once: every block is written"
    fi
}

reads_as_zeros() {
    ! all_overwritten || return 0
    case $(stat -c %t "$disk") in
        7) blkdiscard "$disk" 2>/dev/null ;;
        *) zeroes_by_itself "$disk" && blkdiscard -z -l "$raw_bytes" "$disk" 2>/dev/null ;;
    esac
}

# direct DISK: the word that makes dd read past the page cache; empty where the disk allows none.
direct() { ! dd.coreutils if="$1" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null || echo ,direct; }

# From here on the disk boots: everything else is on it, and was read back.
make_bootable() {
    dd.coreutils if="$work/head" of="$disk" bs="$head_bytes" conv=notrunc,fsync 2>"$work/dd.log" ||
        { wipe; failed DISK_WRITE "the boot record: $(head -n 1 "$work/dd.log")"; }
    for one in $boot_disks; do
        dd.coreutils if="$one" bs="$head_bytes" count=1 iflag="fullblock$(direct "$one")" 2>/dev/null |
            cmp -s - "$work/head" || { wipe; failed DISK_READBACK "$one does not give back its boot record"; }
    done
    say "$boot_disks: bootable from here on"
}
