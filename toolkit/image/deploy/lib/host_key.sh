# shellcheck shell=sh
# The node's SSH host key: made here, so that the private half is nowhere but in this memory and on the node's disk. The
# public half goes out under the attempt's token; the stage signs it with the site's SSH CA while the image is written.

host_key_file=$work/host_key
certified= # `certified` once the certificate is on the disk
certificate_wait_s=${DEPLOY_CERTIFICATE_S:-60}

make_host_key() {
    [ "$host_key" = signed ] || return 0
    rm -f "$host_key_file" "$host_key_file.pub"
    tool ssh-keygen -q -t ed25519 -N '' -C '' -f "$host_key_file" || failed HOST_KEY "ssh-keygen: $answer"
    report host_key "\"host_key\":\"$(cut -d ' ' -f 1,2 "$host_key_file.pub")\""
}

# The certificate is offered by now, unless the controller was away all the time: a node without one is still told apart
# by its key.
fetch_certificate() {
    until=$(($(seconds_up) + certificate_wait_s))
    while [ "$(seconds_up)" -le "$until" ]; do
        fetch 10 "$certificate" 2>/dev/null | head -c 8192 >"$work/certificate"
        grep -q '^ssh-ed25519-cert-v01@openssh.com ' "$work/certificate" && return 0
        usleep 500000
    done
    say "no host certificate at $certificate"
    return 1
}

plant_host_key() {
    [ "$host_key" = signed ] || return 0
    ssh_folder=$work/ssh/etc/ssh
    mkdir -p "$ssh_folder/sshd_config.d"
    cp "$host_key_file" "$ssh_folder/ssh_host_ed25519_key"
    cp "$host_key_file.pub" "$ssh_folder/ssh_host_ed25519_key.pub"
    chmod 0600 "$ssh_folder/ssh_host_ed25519_key"
    chmod 0644 "$ssh_folder/ssh_host_ed25519_key.pub"
    if fetch_certificate; then
        certified=certified
        cp "$work/certificate" "$ssh_folder/ssh_host_ed25519_key-cert.pub"
        echo "HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub" \
            >"$ssh_folder/sshd_config.d/50-rackproof-host-certificate.conf"
        chmod 0644 "$ssh_folder"/*.pub "$ssh_folder"/sshd_config.d/*
    fi
    plant "$work/ssh" || { wipe; failed HOST_KEY "not on the disk: $(tr '\n' ' ' <"$work/missing")"; }
    rm -rf "$host_key_file" "$work/ssh"
}
