# shellcheck shell=sh
# What the machine says: on its console, in its log, and to the stage that waits for it.

work=${DEPLOY_WORK:-/run/deploy}
log=$work/log
serial=
log_max_bytes=262144 # the server takes no more at /log/TOKEN
progress_most=200    # of the 256 that a token has on the server

seconds_up() { cut -d . -f 1 /proc/uptime; }

say() {
    echo "deploy: $*"
    echo "$(seconds_up) $*" >>"$log"
}

# note FILE: what a tool said goes into the log, bounded.
note() { [ ! -s "$1" ] || head -c 8192 "$1" | tr -cd '\n -~' | sed 's/^/    /' >>"$log"; }

# Text for a JSON string: what a disk or a tool says is not trusted to be free of quotes.
plain() { tr '\n\t' '  ' | tr -cd '[:alnum:] ._:;,/=()+-' | cut -c1-300 | sed 's/ *$//'; }

# fetch SECONDS ARGUMENT...: bounded from outside, because Debian 12's static busybox crashes on `wget -T`.
fetch() {
    limit=$1
    shift
    timeout "$limit" wget -q -O - "$@"
}

# fetched FILE MOST_BYTES URL: a small file. It is asked for again: on a bad link any connection may fail.
fetched() {
    for _ in 1 2 3 4; do
        { fetch 30 "$3" 2>/dev/null; echo $? >"$work/fetched"; } | head -c "$2" >"$1"
        [ "$(cat "$work/fetched")" != 0 ] || return 0
        sleep 1
    done
    return 1
}

# post TRIES URL BODY
post() {
    for try in $(seq "$1"); do
        fetch 10 --header 'Content-Type: application/json' --post-data "$3" "$2" >/dev/null 2>&1 && return 0
        sleep "$try"
    done
    return 1
}

# ending EVENT [FIELDS]: the last report of a node that gives up. The log goes first: the stage takes both.
ending() {
    post_log
    report "$@"
}

# report EVENT [FIELDS]: a lost report costs the operator minutes, so it is tried for about half a minute.
report() {
    post 5 "$report" "{\"event\":\"$1\",\"serial\":\"$serial\"${2:+,$2}}" && return 0
    say "report '$1' was not taken by $report"
}

# progress STEP BYTES TOTAL: at most one in a few seconds, ever fewer the longer it takes; a lost one is not repeated.
# They come every 5 s for five minutes, then every 15 s, every minute, and every 5 minutes. Whoever tells them runs
# beside the work, so what is left of them and when the next is due lies in a file.
progress() {
    left=$progress_most next=0
    [ ! -s "$work/progress" ] || read -r left next <"$work/progress"
    now=$(seconds_up)
    { [ "$now" -ge "$next" ] && [ "$left" -gt 0 ]; } || return 0
    pause=300
    [ "$left" -le 40 ] || pause=60
    [ "$left" -le 100 ] || pause=15
    [ "$left" -le 140 ] || pause=5
    echo "$((left - 1)) $((now + pause))" >"$work/progress"
    percent=0
    [ "$3" -le 0 ] || percent=$(($2 * 100 / $3))
    say "$1 $percent% ($2 of $3 bytes)"
    post 1 "$report" "{\"event\":\"progress\",\"step\":\"$1\",\"percent\":$percent,\"bytes\":$2,\"total\":$3}" || return 0
}

# The log as it is now; the newest part of it, if it is too long.
post_log() {
    [ -n "$log_url" ] || return 0
    tail -c "$log_max_bytes" "$log" >"$work/log.sent"
    fetch 20 --header 'Content-Type: text/plain' --post-file "$work/log.sent" "$log_url" >/dev/null 2>&1 ||
        say "the log was not taken by $log_url"
}

power_off() {
    say "power off: $*"
    sync
    poweroff -f
    sleep 60
    exit 1
}

# By the profile's policy a machine that failed stays on, for who comes to look; its console tells why.
stay_on() {
    sync
    while :; do
        echo "deploy: imaging FAILED, the machine waits: $*"
        echo "deploy: nothing more happens here; the log is in $log and with the operator"
        sleep 60
    done
}

# failed CODE MESSAGE: our side's trouble, not evidence about the hardware.
failed() {
    say "$1: $2"
    ending failed "\"code\":\"$1\",\"message\":\"$(echo "$2" | plain)\""
    [ "$on_failure" != hold ] || stay_on "$1: $2"
    power_off "$1: $2"
}

# refused CODE EXPECTED FOUND: not the machine, or not the disk, that was named.
refused() {
    say "$1: expected $2, found $3"
    ending refused "\"code\":\"$1\",\"expected\":\"$(echo "$2" | plain)\",\"found\":\"$(echo "$3" | plain)\""
    power_off "$1: expected $2, found $3"
}
