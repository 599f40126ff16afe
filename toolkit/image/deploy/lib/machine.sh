# shellcheck shell=sh
# The machine that runs this: its kernel's file systems and drivers, its serial, its boot NIC.

hardware=${DEPLOY_HARDWARE:-/run/hardware} # of a virtual node; there /sys shows the machine that carries it

# first FILE...: the first line of the first file that has one.
first() {
    for file in "$@"; do
        [ -s "$file" ] && { head -n 1 "$file" | tr -d ' \t\r\0' | plain; return; }
    done
}

mount_kernel_filesystems() {
    [ -e /proc/uptime ] && return
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs dev /dev
    mount -t tmpfs run /run
    [ ! -d /sys/firmware/efi/efivars ] || mount -t efivarfs efivarfs /sys/firmware/efi/efivars
}

# Where the ramdisk carries modules of this kernel, those that the machine's devices ask for; then its disks appear.
load_modules() {
    [ -d "/lib/modules/$(uname -r)" ] || return 0
    for _ in 1 2; do # drivers of buses first, then of what they found
        find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u | xargs modprobe -a -q -b >/dev/null 2>&1
        usleep 300000
    done
    modprobe -a -q raid1 raid0 efivarfs >/dev/null 2>&1
    [ ! -d /sys/firmware/efi/efivars ] || mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null
    return 0
}

machine_serial() { first "$hardware/serial" /sys/class/dmi/id/product_serial; }

check_machine() {
    [ "$serial" = "$planned_serial" ] || refused NODE_SERIAL_MISMATCH "$planned_serial" "$serial"
}

# The boot NIC is known by its MAC: names differ from machine to machine.
find_nic() {
    for try in $(seq 100); do
        for path in /sys/class/net/*; do
            [ "$(cat "$path/address" 2>/dev/null)" = "$mac" ] && { basename "$path"; return; }
        done
        usleep 100000
    done
}

bring_up_network() {
    nic=$(find_nic)
    [ -n "$nic" ] || power_off "no network interface has the address $mac"
    ip link set lo up
    ip link set "$nic" up
    udhcpc -q -n -t 20 -T 1 -i "$nic" -s /etc/udhcpc.script >/dev/null 2>&1 || power_off "no DHCP answer on $nic"
}
