# shellcheck shell=sh
# On UEFI machines, an entry of the firmware's boot menu for what was written, first in the order. Machines with a BIOS,
# and virtual ones without firmware, have no such menu.

efi_variables=${DEPLOY_EFI:-/sys/firmware/efi/efivars}
entry_label="rackproof"

# Number of the EFI system partition; empty where the disk has none.
efi_partition() {
    sfdisk -d "$disk" 2>/dev/null | grep -i 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B' | head -n 1 |
        sed 's/ *:.*//; s/.*[^0-9]\([0-9]*\)$/\1/'
}

efi_loader() {
    case $(uname -m) in
        aarch64) echo '\EFI\BOOT\BOOTAA64.EFI' ;;
        *) echo '\EFI\BOOT\BOOTX64.EFI' ;;
    esac
}

# An entry that cannot be made is told, and ends nothing: firmware finds \EFI\BOOT by itself on a disk without one.
install_boot_entry() {
    [ -d "$efi_variables" ] || return 0
    partition=$(efi_partition)
    [ -n "$partition" ] || { say "no EFI system partition on $disk: no boot entry"; return 0; }
    for old in $(efibootmgr 2>/dev/null | sed -n "s/^Boot\([0-9A-F]\{4\}\)[* ] $entry_label\([[:space:]].*\)\{0,1\}$/\1/p"); do
        tool efibootmgr --quiet --delete-bootnum --bootnum "$old"
    done
    for one in $boot_disks; do
        tool efibootmgr --quiet --create --disk "$one" --part "$partition" --label "$entry_label" \
            --loader "$(efi_loader)" || say "the firmware took no boot entry: $answer"
    done
}
