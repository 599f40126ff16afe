# shellcheck shell=sh
# Brings the image over HTTP onto the disk: hashed as it comes over the wire, unpacked and written at the same time. A
# transfer that breaks goes on at the byte where it broke, and hash, decoder and disk notice nothing of it.

idle_s=${DEPLOY_IDLE_S:-30} # no byte reached the disk for so long: the connection is dead and is opened anew
tries_without_a_byte=10     # a server that restarts is away for seconds; after this many it does not come back

# with_pid FILE COMMAND...: runs the command, its process id in FILE.
with_pid() {
    # shellcheck disable=SC2016  # expanded by the inner shell
    sh -c 'echo $$ >"$0"; exec "$@"' "$@"
}

# http_get URL OFFSET: the body from that byte on. busybox's wget writes a partial answer to no pipe.
http_get() {
    rest=${1#http://}
    place=${rest%%/*}
    port=80
    case $place in
        *:*) port=${place##*:} ;;
    esac
    [ -p "$work/request" ] || mkfifo "$work/request"
    # Open for both ends, so that nc never sees the end of its input: it would close its half of the connection, and
    # nginx takes that for a client that went away and stops sending.
    {
        printf 'GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nRange: bytes=%s-\r\n\r\n' \
            "${rest#*/}" "$place" "$2" >&0
        with_pid "$work/nc.pid" nc -w 10 "${place%%:*}" "$port" 2>>"$log"
    } <>"$work/request" | body_from "$2"
}

# body_from OFFSET: passes on the body of an answer. A server that knows no ranges sends all of it once more.
body_from() {
    read -r _ code _ || return
    while read -r header; do
        [ -n "${header%"$(printf '\r')"}" ] || break
    done
    case $code in
        206) dd.coreutils bs=256K 2>/dev/null ;;
        200) tail -c "+$(($1 + 1))" ;;
        *) echo "$code" >"$work/refusal" ;;
    esac
}

# The whole image on stdout, over as many connections as it takes; the number of bytes that came in $work/sent.
image_stream() {
    sent=0
    tries=$tries_without_a_byte
    connections=0
    while [ "$sent" -lt "$wire_bytes" ] && [ "$tries" -gt 0 ]; do
        connections=$((connections + 1))
        http_get "$url" "$sent" | dd.coreutils bs=256K iflag=fullblock,count_bytes count=$((wire_bytes - sent)) 2>"$work/got"
        got=$(sed -n 's/^\([0-9]*\) bytes.*/\1/p' "$work/got")
        sent=$((sent + ${got:-0}))
        echo "$sent" >"$work/sent"
        [ "$sent" -lt "$wire_bytes" ] || break
        tries=$((tries - 1))
        [ "${got:-0}" = 0 ] || tries=$tries_without_a_byte
        ! is_final || tries=$((tries - 4)) # it is there and says no: another answer is hardly to be hoped for
        say "the transfer broke after $sent of $wire_bytes bytes: going on there" >&2
        sleep $(((tries_without_a_byte - tries) / 2))
    done
    echo "$connections" >"$work/connections"
}

# Written past the page cache: it would fill with what nobody reads from there, and costs more than the disk (on an
# emulated machine ten times as much). After a decoding error the rest is still read: only the whole file's hash can
# tell a damaged image from a damaged decoder.
write_image() {
    rm -f "$work/wire" "$work/refusal"
    mkfifo "$work/wire"
    openssl dgst -sha256 -r <"$work/wire" >"$work/sum" &
    hasher=$!
    image_stream |
        tee.coreutils "$work/wire" |
        { zstd -dcq 2>"$work/zstd.log"; echo $? >"$work/zstd"; cat >/dev/null; } |
        {
            dd.coreutils of="$work/head" bs="$head_bytes" count=1 iflag=fullblock 2>/dev/null
            with_pid "$work/dd.pid" dd.coreutils of="$disk" bs=1M iflag=fullblock \
                oflag="seek_bytes$(direct "$disk")" seek="$head_bytes" conv="${sparse}notrunc,fsync" 2>"$work/dd.log"
            echo $? >"$work/dd"
        } &
    writer=$!
    followed write "$raw_bytes" "$writer"
    wait "$hasher"
    found_sha256=$(cut -d ' ' -f 1 "$work/sum")
}

# How far the program whose id is in $work/dd.pid has come in the file it writes or reads.
position() {
    pid=$(cat "$work/dd.pid" 2>/dev/null) || pid=
    [ -n "$pid" ] || { echo 0; return; }
    sed -n 's/^pos:[[:space:]]*//p' "/proc/$pid/fdinfo/${1:-1}" 2>/dev/null | grep . || echo 0
}

# follow STEP TOTAL DESCRIPTOR: tells how far it is, for ever; a silent connection is cut, so that the stream opens
# another.
follow() {
    last=0
    moved=$(seconds_up)
    while sleep 1; do
        at=$(position "$3")
        [ "$at" = "$last" ] || moved=$(seconds_up)
        last=$at
        [ "$at" = 0 ] || progress "$1" "$at" "$2"
        if [ $(($(seconds_up) - moved)) -ge "$idle_s" ]; then
            say "$1: no byte for $idle_s s"
            [ ! -s "$work/nc.pid" ] || kill "$(cat "$work/nc.pid")" 2>/dev/null
            moved=$(seconds_up)
        fi
    done
}

# followed STEP TOTAL PID [DESCRIPTOR]: waits for the process; its status. DESCRIPTOR: where its position is read, 1 for
# a writer, 0 for a reader.
followed() {
    follow "$1" "$2" "${4:-1}" &
    follower=$!
    wait "$3"
    ended=$?
    kill "$follower" 2>/dev/null
    rm -f "$work/dd.pid"
    return "$ended"
}

status() { cat "$work/$1"; }

# Writes the image but for its first bytes (`boot_record.sh`) and reads it back: no ending leaves a disk that boots.
write_verified_image() {
    say "writing $url"
    clear_disk
    write_image
    if [ "$(status sent)" != "$wire_bytes" ]; then
        wipe
        failed IMAGE_DOWNLOAD "$url ended after $(status sent) of $wire_bytes bytes$(refusal)"
    fi
    if [ "$found_sha256" != "$sha256" ]; then
        wipe
        ending hash_mismatch "\"expected\":\"$sha256\",\"found\":\"$found_sha256\""
        power_off "image hash is $found_sha256, not $sha256"
    fi
    note "$work/dd.log"
    [ "$(status dd)" = 0 ] || { wipe; failed DISK_WRITE "$(head -n 1 "$work/dd.log")"; }
    [ "$(status zstd)" = 0 ] || { wipe; failed IMAGE_FORMAT "the image has the right hash and is not zstd"; }
    say "image written over $(status connections) connection(s)"
    read_back
}

# Whether the server's last answer was one that asking again does not change (RFC 9110, 15.5).
is_final() { case $(cat "$work/refusal" 2>/dev/null) in 400 | 401 | 403 | 404 | 410 | 416) ;; *) false ;; esac; }

refusal() { [ ! -s "$work/refusal" ] || echo "; the server answered $(head -c 16 "$work/refusal" | plain)"; }
