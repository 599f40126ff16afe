# shellcheck shell=sh
# The image's manifest: an in-toto statement in a DSSE envelope, signed with the site's image key (Ed25519).
# https://github.com/secure-systems-lab/dsse/blob/master/protocol.md

manifest_type=application/vnd.in-toto+json
manifest_max_bytes=1048576
embedded_keys=${DEPLOY_KEYS:-/etc/rackproof/image-keys}

# Sets `keys`, files of the site's image keys: those the ramdisk was published with; only where it has none, the boot
# script's (base64 of their DER forms, without the last `=`, by commas).
find_image_keys() {
    keys=$(ls "$embedded_keys"/*.pem 2>/dev/null)
    [ -z "$keys" ] || return 0
    [ -n "$image_key" ] || failed MANIFEST_UNTRUSTED "neither the ramdisk nor the boot script has the site's image key"
    for one in $(echo "$image_key" | tr ',' ' '); do
        name=$work/key-$(echo "$one" | tr -cd '[:alnum:]').pem
        { echo "-----BEGIN PUBLIC KEY-----"; echo "$one="; echo "-----END PUBLIC KEY-----"; } >"$name"
        keys="$keys $name"
    done
}

# text FIELD FILE: a text field of a JSON file that holds it once, without quotes inside.
text() { tr -d '\n' <"$2" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p"; }

# Whether one of the envelope's signatures is by one of the keys, over exactly this payload.
signature_holds() {
    {
        printf 'DSSEv1 %d %s %d ' ${#manifest_type} "$manifest_type" "$(wc -c <"$work/payload")"
        cat "$work/payload"
    } >"$work/signed"
    for signature in $(grep -o '"sig": *"[^"]*"' "$work/envelope" | sed 's/.*"\([^"]*\)"$/\1/' | head -n 16); do
        echo "$signature" | base64 -d >"$work/signature" 2>/dev/null
        for key in $keys; do
            openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in "$work/signed" -sigfile "$work/signature" \
                >"$work/openssl.log" 2>&1 && return 0
        done
    done
    note "$work/openssl.log"
    return 1
}

# field NAME OBJECT: a text or a number of a flat JSON object.
field() { echo "$2" | sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"{}]*\).*/\1/p"; }

# Sets what is known of the image from here on; `sha256` of the boot script must be the manifest's.
read_manifest() {
    part=$(sed -n 's/.*{\("content":{[^{}]*},[^{}]*"role":"disk"[^{}]*\)}.*/\1/p' "$work/payload")
    content=$(echo "$part" | sed -n 's/.*"content":{\([^{}]*\)}.*/\1/p')
    outer=$(echo "$part" | sed 's/"content":{[^{}]*},//')
    signed_sha256=$(field sha256 "$outer")
    wire_bytes=$(field sizeBytes "$outer")
    raw_sha256=$(field sha256 "$content")
    raw_bytes=$(field sizeBytes "$content")
    root=$(sed -n 's/.*"rootPartition":{\([^{}]*\)}.*/\1/p' "$work/payload")
    root_number=$(field number "$root")
    root_start=$(field startBytes "$root")
    root_size=$(field sizeBytes "$root")
    for number in "$wire_bytes" "$raw_bytes" "$root_number" "$root_start" "$root_size"; do
        case $number in
            '' | *[!0-9]*) failed MANIFEST_WRONG "the manifest does not tell the disk's sizes and its root partition" ;;
        esac
    done
    [ "${#raw_sha256}" = 64 ] || failed MANIFEST_WRONG "the manifest does not tell what the image unpacks to"
    [ "$signed_sha256" = "$sha256" ] ||
        failed MANIFEST_WRONG "the signed image has sha256 $signed_sha256, the boot script wants $sha256"
}

verify_manifest() {
    find_image_keys
    fetched "$work/envelope" "$manifest_max_bytes" "$manifest" ||
        failed MANIFEST_DOWNLOAD "$manifest could not be fetched"
    text payload "$work/envelope" | base64 -d >"$work/payload" 2>/dev/null
    [ "$(text payloadType "$work/envelope")" = "$manifest_type" ] ||
        failed MANIFEST_UNTRUSTED "the manifest is no signed in-toto statement"
    signature_holds || failed MANIFEST_UNTRUSTED "no signature of the manifest is by the site's image key"
    read_manifest
    say "image $(field image "$(tail -c 4096 "$work/payload")") $sha256: the site signed its manifest"
}

check_sizes() {
    for one in $boot_disks; do
        found=$(bytes_of "$one")
        [ "$found" -ge "$raw_bytes" ] || failed DISK_TOO_SMALL "$one has $found bytes, the image needs $raw_bytes"
    done
}
