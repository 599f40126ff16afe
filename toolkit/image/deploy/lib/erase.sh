# shellcheck shell=sh
# Takes away what was on a disk, by the profile's policy, and says which way it went and what the device answered.
# NIST SP 800-88r1 calls format with user data erase or cryptographic erase, and sanitize, purging; discarding and one
# pass of overwriting, clearing. The operator has typed the rack's name before this was sent.

answer=      # what the device said to the last attempt
overwritten= # disks on which every block is a zero, boot disks first

# tool NAME ARGUMENT...: runs a tool whose words are the device's answer.
tool() {
    say "$*"
    "$@" >"$work/tool.log" 2>&1
    status=$?
    note "$work/tool.log"
    answer=$(head -c 2048 "$work/tool.log" | plain)
    return "$status"
}

is_nvme() { case $1 in "$dev"/nvme*) [ "$(stat -c %t "$1")" != 7 ] ;; *) false ;; esac; }

# id_ctrl FIELD DISK: a number of the controller's identity.
id_ctrl() { nvme id-ctrl "$2" 2>/dev/null | sed -n "s/^$1 *: *//p" | head -n 1; }

# Format NVM with secure erase settings: 2 cryptographic where the controller can (FNA bit 2), else 1 user data
# (NVM Express Base Specification 2.0c, 5.14 and figure 275).
erase_by_format() {
    is_nvme "$1" || { answer="no NVMe disk"; return 1; }
    setting=1
    [ $(($(id_ctrl fna "$1") & 4)) = 0 ] || setting=2
    tool nvme format "$1" --ses="$setting" --force --timeout=600000
}

# Sanitize: block erase (action 2) or cryptographic erase (4), by what SANICAP offers; it goes on by itself, also after
# a power cut, and its log page tells how far it is (same specification, 5.24 and 5.16.1.23).
erase_by_sanitize() {
    is_nvme "$1" || { answer="no NVMe disk"; return 1; }
    offers=$(id_ctrl sanicap "$1")
    action=
    [ $((offers & 1)) = 0 ] || action=4
    [ $((offers & 2)) = 0 ] || action=2
    [ -n "$action" ] || { answer="the controller offers no sanitize (sanicap ${offers:-unknown})"; return 1; }
    tool nvme sanitize "$1" --sanact="$action" || return 1
    until=$(($(seconds_up) + 14400))
    while [ "$(seconds_up)" -lt "$until" ]; do
        nvme sanitize-log "$1" >"$work/tool.log" 2>&1
        done_64k=$(sed -n 's/.*(SPROG) *: *\([0-9]*\).*/\1/p' "$work/tool.log")
        state=$(sed -n 's/.*(SSTAT) *: *\(0x[0-9a-fA-F]*\).*/\1/p' "$work/tool.log")
        case $((${state:-2} & 7)) in
            1 | 4) answer="sanitize ended with SSTAT $state"; return 0 ;;
            3) answer="sanitize failed with SSTAT $state"; return 1 ;;
        esac
        progress sanitize "${done_64k:-0}" 65535
        sleep 2
    done
    answer="sanitize did not end in 4 hours"
    return 1
}

erase_by_discard() { tool blkdiscard "$1"; }

erase_by_overwrite() {
    total=$(bytes_of "$1")
    say "overwriting $1 with zeros"
    with_pid "$work/dd.pid" dd.coreutils if=/dev/zero of="$1" bs=4M iflag=count_bytes count="$total" \
        oflag="seek_bytes$(direct "$1")" conv=notrunc,fsync 2>"$work/tool.log" &
    followed overwrite "$total" "$!"
    status=$?
    answer=$(tail -n 1 "$work/tool.log" | plain)
    [ "$status" != 0 ] || overwritten="${overwritten:+$overwritten }$1"
    return "$status"
}

# Whether every block of the boot disks is a zero.
all_overwritten() { case "$overwritten " in "$boot_disks "*) ;; *) false ;; esac; }

# erase_disk DISK: the first method of the policy's that the disk takes.
erase_disk() {
    tried=
    for method in $(echo "$erase" | tr ',' ' '); do
        [ "$method" != none ] || return 0
        if "erase_by_$method" "$1"; then
            answer="${answer:-done}${tried:+; before that it refused $tried}"
            say "$1 erased by $method: $answer"
            report erased "\"code\":\"$method\",\"found\":\"$(serial_of "${1##*/}")\",\"message\":\"$(echo "$answer" | plain)\""
            return 0
        fi
        tried="$tried$method ($answer); "
    done
    [ -z "$tried" ] || failed ERASE_REFUSED "${1##*/} took none of: $tried"
}

erase_planned_disks() {
    data_to_erase=
    [ "$erase_data" != 1 ] || data_to_erase=$data_disks
    for one in $boot_disks $data_to_erase; do
        erase_disk "$one"
    done
}
