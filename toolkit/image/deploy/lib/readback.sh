# shellcheck shell=sh
# Reads the whole image back from the disk, past the page cache, and compares it with what the site signed. Of a mirror
# each half is read by itself: through the array it would be the one or the other.

read_back() {
    sync
    { echo 1 >/proc/sys/vm/drop_caches; } 2>/dev/null
    for one in $boot_disks; do
        read_one_back "$one"
    done
}

read_one_back() {
    flag=$(direct "$1")
    say "reading $raw_bytes bytes back from $1"
    {
        cat "$work/head" # not there yet: it is read back when it is
        with_pid "$work/dd.pid" dd.coreutils if="$1" bs=4M iflag="fullblock,skip_bytes,count_bytes$flag" \
            skip="$head_bytes" count="$((raw_bytes - head_bytes))" 2>"$work/read.log"
        echo $? >"$work/read"
    } | openssl dgst -sha256 -r >"$work/sum" &
    reader=$!
    followed verify "$raw_bytes" "$reader" 0
    found=$(cut -d ' ' -f 1 "$work/sum")
    [ "$(status read)" = 0 ] || { note "$work/read.log"; wipe; failed DISK_READ "$(head -n 1 "$work/read.log")"; }
    [ "$found" = "$raw_sha256" ] || {
        wipe
        failed DISK_READBACK "$1 gives back sha256 $found, $raw_sha256 was written to it"
    }
    say "read back $raw_bytes bytes from $1$(echo "$flag" | sed 's/,direct/, past the cache/'): as signed"
}
