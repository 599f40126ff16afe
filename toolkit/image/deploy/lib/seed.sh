# shellcheck shell=sh
# Writes files into the root file system without mounting it: one way for metal and for machines whose kernel does not
# scan partitions, and nothing stays mounted when the power goes.

seed_max_bytes=16777216 # a few text files; what is more is no seed of ours

root_place() { echo "$disk?offset=$root_start"; }

# plant FOLDER: all files below it, with their modes. debugfs answers 0 whatever happens: each is read back.
plant() {
    place=$(root_place)
    cd "$1" || return 1
    {
        find . -mindepth 1 -type d | sort | while read -r name; do
            echo "mkdir ${name#.}"
            echo "set_inode_field ${name#.} mode 0$(stat -c %f "$name" | xargs -I@ printf '%o' 0x@)"
        done
        find . -type f | while read -r name; do
            echo "rm ${name#.}"
            echo "write $name ${name#.}"
        done
    } >"$work/commands"
    debugfs -w -f "$work/commands" "$place" >"$work/debugfs.log" 2>&1
    find . -type f | while read -r name; do
        debugfs -R "cat ${name#.}" "$place" 2>/dev/null | cmp -s - "$name" || echo "${name#.}"
    done >"$work/missing"
    cd /
    [ ! -s "$work/missing" ]
}

plant_seed() {
    say "planting the seed"
    fetched "$work/seed.tar" "$seed_max_bytes" "$seed" || { wipe; failed SEED_DOWNLOAD "$seed could not be fetched"; }
    found=$(openssl dgst -sha256 -r <"$work/seed.tar" | cut -d ' ' -f 1)
    [ "$found" = "$seed_sha256" ] || { wipe; failed SEED_HASH_MISMATCH "seed has sha256 $found"; }
    mkdir -p "$work/seed"
    tar -xf "$work/seed.tar" -C "$work/seed" || { wipe; failed SEED_FORMAT "the seed is not a tar file"; }
    plant "$work/seed" && return 0
    note "$work/debugfs.log"
    wipe
    failed SEED_WRITE "not on the disk: $(tr '\n' ' ' <"$work/missing")"
}

# A copy of the log stays with what was written; a disk that takes none is no reason to give up now.
plant_log() {
    mkdir -p "$work/logs/var/log"
    cp "$log" "$work/logs/var/log/rackproof-deploy.log"
    chmod 0640 "$work/logs/var/log/rackproof-deploy.log"
    plant "$work/logs" || say "the log could not be left on the disk"
}
