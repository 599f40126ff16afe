# shellcheck shell=sh
# Which disk is the planned one: by what is written on it (serial, WWN, size), never by the name the kernel gave it.

dev=${DEPLOY_DEV:-/dev}

# A virtual node's disks are told as /sys/block tells them, because there /sys shows those of the machine carrying it.
block_folder() {
    if [ -d "$hardware" ]; then
        echo "$hardware/block"
    else
        echo "${DEPLOY_SYS:-/sys}/block"
    fi
}

# Names of all disks that are hardware. `hidden` ones are the paths below a multipath NVMe namespace.
disk_names() {
    for path in "$(block_folder)"/*; do
        name=${path##*/}
        case $name in
            '*' | loop* | ram* | zram* | dm-* | md* | sr* | fd* | nbd*) continue ;;
        esac
        [ "$(cat "$path/hidden" 2>/dev/null)" = 1 ] || echo "$name"
    done
}

# NVMe and virtio tell it as text; SCSI and SATA in the unit serial number page (SPC-5 7.8.12: 4 bytes, then text).
serial_of() {
    path=$(block_folder)/$1
    if [ -s "$path/device/vpd_pg80" ] && [ ! -s "$path/device/serial" ]; then
        tail -c +5 "$path/device/vpd_pg80" | tr -d ' \0\n' | plain
    else
        first "$path/device/serial" "$path/serial"
    fi
}

# One spelling of a WWN: `eui.`, `naa.`, `0x` and the like tell its kind, not its value.
spelled() { tr '[:upper:]' '[:lower:]' | sed -e 's/^wwn-//' -e 's/^\(eui\|naa\|uuid\|nvme\)[.-]//' -e 's/^0x//'; }

wwn_of() {
    path=$(block_folder)/$1
    first "$path/wwid" "$path/device/wwid" | spelled
}

bytes_of() { blockdev --getsize64 "$1" 2>/dev/null || echo 0; }

one_line() { echo "$1" | tr '\n' ' ' | sed 's/ *$//'; }

# disks_with SERIAL WWN: names of the disks that have what is given of both.
disks_with() {
    wanted_wwn=$(echo "$2" | spelled)
    for name in $(disk_names); do
        [ -z "$1" ] || [ "$(serial_of "$name")" = "$1" ] || continue
        [ -z "$2" ] || [ "$(wwn_of "$name")" = "$wanted_wwn" ] || continue
        echo "$name"
    done
}

# What is there, for whoever has to correct the plan.
all_serials() {
    for name in $(disk_names); do
        found=$(serial_of "$name")
        echo "${found:-$name without serial}"
    done | tr '\n' ',' | sed -e 's/,$//' -e 's/,/, /g'
}

# find_disk SERIAL WWN: sets `found_disk`, the one disk that has them. Anything else than exactly one is refused.
find_disk() {
    names=$(disks_with "$1" "$2")
    case $(echo "$names" | wc -w) in
        0)
            names=$(all_serials)
            refused DISK_SERIAL_MISMATCH "${1:-$2}" "${names:-no disk}"
            ;;
        1) ;;
        *) failed DISK_AMBIGUOUS "several disks answer to ${1:-$2}: $(one_line "$names"): name it by its wwn in the rack file" ;;
    esac
    found_disk=$dev/$names
    [ -b "$found_disk" ] || refused DISK_SERIAL_MISMATCH "${1:-$2}" "no disk at $found_disk"
}

# Not if it is the base of something that runs: mounted, swap, or part of an array or a volume.
check_free() {
    for place in "$1" "$(readlink -f "$1")"; do
        ! cat /proc/mounts /proc/swaps 2>/dev/null | grep -q "^${place}[p0-9]*[[:space:]]" ||
            failed DISK_IN_USE "$1 is mounted or swapped to"
    done
    numbers=$(stat -c '%t %T' "$1")
    folder=/sys/dev/block/$(printf '%d:%d' "0x${numbers% *}" "0x${numbers#* }")
    for holder in "$folder"/holders/* "$folder"/*/holders/*; do
        [ ! -e "$holder" ] || failed DISK_IN_USE "$1 is held by ${holder##*/}"
    done
}

# check_planned_size DEVICE BYTES: to the byte, where the plan tells it (else empty, or 0).
check_planned_size() {
    case $2 in '' | 0) return 0 ;; esac
    found=$(bytes_of "$1")
    [ "$found" = "$2" ] || refused DISK_SIZE_MISMATCH "$2 bytes" "${1##*/} ($(serial_of "${1##*/}")): $found bytes"
}

# An image's partition table and boot loader count sectors of 512 bytes: on a disk with others firmware finds neither.
check_sectors() {
    sector_bytes=$(blockdev --getss "$1" 2>/dev/null)
    [ "$sector_bytes" = 512 ] ||
        failed DISK_SECTORS "${1##*/} ($(serial_of "${1##*/}")) has sectors of ${sector_bytes:-unknown} bytes, the image of 512"
}

# find_known_by SERIAL|wwn:WWN BYTES: sets `found_disk`, which is free and has the planned size.
find_known_by() {
    case $1 in
        wwn:*) find_disk "" "${1#wwn:}" ;;
        *) find_disk "$1" "" ;;
    esac
    check_free "$found_disk"
    check_planned_size "$found_disk" "$2"
}

# Sets `disk`, `boot_disks` (it and the other half of its mirror) and `data_disks`. The device's planned name is a hint: another one is only told.
find_planned_disks() {
    hint=$disk
    find_disk "$disk_serial" "$disk_wwn"
    disk=$found_disk
    [ -z "$hint" ] || [ "$hint" = "$disk" ] || say "the planned disk is $disk, not $hint"
    check_free "$disk"
    check_planned_size "$disk" "$disk_size"
    boot_disks=$disk
    for one in $mirror; do
        find_known_by "$one" "$mirror_size"
        boot_disks="$disk $found_disk"
    done
    for one in $boot_disks; do
        check_sectors "$one"
    done
    data_disks=
    sizes=$data_size, # as many as disks, in their order
    for one in $(echo "$data" | tr ',' ' '); do
        find_known_by "$one" "${sizes%%,*}"
        sizes=${sizes#*,}
        data_disks="$data_disks $found_disk"
    done
    check_distinct
}

check_distinct() {
    # shellcheck disable=SC2086  # one word a disk
    twice=$(printf '%s\n' $boot_disks $data_disks | sort | uniq -d)
    [ -z "$twice" ] || failed DISK_AMBIGUOUS "$(one_line "$twice") is planned for two purposes"
}
