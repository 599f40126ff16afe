# shellcheck shell=sh
# How the planned disks become the one that is written and, where the profile says so, a striped one for data.

# The mirror is made of whole disks with the metadata at their end (version 1.0): each of the two begins with the
# image's partition table and boot loader, so that firmware, which knows no arrays, boots from either.
assemble_disks() {
    [ "$raid" = raid1 ] || return 0
    [ -n "$mirror" ] || failed STORAGE_PLAN "the profile asks for a mirror and the boot script names no second disk"
    # Nothing to synchronise where every block of both is a zero; else the kernel copies one onto the other, also after
    # the reboot. What is written goes to both at once.
    same=
    ! all_overwritten || same=--assume-clean
    for one in $boot_disks; do
        tool mdadm --zero-superblock --force "$one"
    done
    # shellcheck disable=SC2086  # one word a disk; `same` may be none
    tool mdadm --create "$dev/md0" --run --force --metadata=1.0 --level=1 --raid-devices=2 --homehost=any \
        --name=root $same $boot_disks ||
        failed RAID_FAILED "making a mirror of $boot_disks: $answer"
    disk=$dev/md0
    [ "$(bytes_of "$disk")" -ge "$raw_bytes" ] || failed DISK_TOO_SMALL "the mirror is smaller than the image"
}

# Data goes to one array over all data disks, as DGX systems have it at /raid.
make_data_array() {
    [ -n "$data_disks" ] && [ -n "$data_mount" ] || return 0
    count=$(echo "$data_disks" | wc -w)
    # shellcheck disable=SC2086  # one word a disk
    tool mdadm --create "$dev/md1" --run --force --metadata=1.2 --level=0 --raid-devices="$count" --homehost=any \
        --name=data $data_disks || failed RAID_FAILED "striping $data_disks: $answer"
    tool mke2fs -q -F -t ext4 -L data "$dev/md1" || failed RAID_FAILED "the file system for data: $answer"
}

# Nothing is mounted and no partition is scanned for: the file system is grown where it lies on the disk.
grow_root() {
    [ "$grow" = 1 ] || return 0
    disk_bytes=$(bytes_of "$disk")
    room=$(((disk_bytes - root_start - gpt_tail_bytes) / 1048576 * 1048576))
    [ "$room" -gt "$root_size" ] || return 0
    grow_table
    place=$(root_place)
    tool e2fsck -f -p "$place" || [ "$status" = 1 ] || { wipe; failed GROW_FAILED "e2fsck: $answer"; }
    tool resize2fs "$place" "$((room / 1024))K" || { wipe; failed GROW_FAILED "resize2fs: $answer"; }
    root_size=$room
    say "root partition $root_number has $room bytes"
}

gpt_tail_bytes=$((34 * 512)) # what a GPT keeps at the end of a disk

# The table is grown aside, in a file as large as the disk (holes: it takes a few MiB), because the disk has no first
# sector yet. Its head comes to the disk when all else is there.
grow_table() {
    table=$work/table
    rm -f "$table"
    truncate -s "$disk_bytes" "$table"
    copy_at "$disk" "$table" 0 1048576
    copy_at "$disk" "$table" "$((raw_bytes - gpt_tail_bytes))" "$gpt_tail_bytes"
    copy_at "$work/head" "$table" 0 "$head_bytes"
    # The copy of a GPT stays where the image ended, and bounds the partitions, until it is moved.
    if sfdisk -d "$table" 2>/dev/null | grep -q '^label: gpt'; then
        tool sfdisk --no-reread --no-tell-kernel --relocate gpt-bak-std "$table" ||
            { wipe; failed GROW_FAILED "the copy of the partition table: $answer"; }
    fi
    echo ", $((room / 512))" | tool sfdisk --no-reread --no-tell-kernel --force -N "$root_number" "$table" ||
        { wipe; failed GROW_FAILED "the partition table: $answer"; }
    copy_at "$table" "$work/head" 0 "$head_bytes"
    { copy_at "$table" "$disk" "$head_bytes" "$((1048576 - head_bytes))" &&
        copy_at "$table" "$disk" "$((disk_bytes - gpt_tail_bytes))" "$gpt_tail_bytes"; } ||
        { wipe; failed GROW_FAILED "writing the partition table: $(head -n 1 "$work/copy.log")"; }
    rm -f "$table"
}

# copy_at FROM TO OFFSET BYTES: the same stretch of both.
copy_at() {
    dd.coreutils if="$1" of="$2" bs=64K iflag=fullblock,skip_bytes,count_bytes oflag=seek_bytes skip="$3" seek="$3" \
        count="$4" conv=notrunc,fsync 2>"$work/copy.log"
}
