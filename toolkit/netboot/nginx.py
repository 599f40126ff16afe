"""nginx's configuration for a boot service: files with ranges and limits, and what must be decided behind a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolkit.netboot.posts import LOG_MAX_BYTES
from toolkit.netboot.service import SOURCE_HEADER
from toolkit.netboot.site import BootSite

_SERVED = ("images", "seeds", "apt")  # folders of the provisioning root that any node may read


def site_configuration(site: BootSite) -> str:
    """For a file that nginx includes in its `http` section (Debian: sites-enabled)."""
    lines = [
        "# rackproof: network boot of planned nodes",
        *(("limit_conn_zone $server_addr zone=rackproof_downloads:64k;",) if site.limits.connections else ()),
        "limit_conn_zone $binary_remote_addr zone=rackproof_source:1m;",
        "upstream rackproof_netboot {",
        f"    server unix:{site.socket} fail_timeout=0;",
        "}",
        "server {",
        f"    listen {site.address}:{site.port};",
        *_tls(site),
        *(f"    {line}" for line in _server(site)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def standalone(site: BootSite, folder: Path, user: str = "") -> str:
    """A whole nginx.conf, with all that it writes below `folder`: for a network namespace, beside any other nginx."""
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    lines = [
        "daemon off;",
        f"pid {folder}/nginx.pid;",
        f"error_log {folder}/error.log warn;",
        *((f"user {user};",) if user else ()),
        "worker_processes 1;",
        "events { worker_connections 1024; }",
        "http {",
        "    default_type application/octet-stream;",
        "    log_format bytes '$remote_addr $status $body_bytes_sent \"$request\" $http_range';",
        f"    access_log {folder}/access.log bytes;",
        *(f"    {kind}_temp_path {folder}/{kind};" for kind in temporary),
        site_configuration(site),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _tls(site: BootSite) -> Iterator[str]:
    if site.tls is not None:
        yield f"    listen {site.address}:{site.tls.port} ssl;"
        yield f"    ssl_certificate {site.tls.certificate};"
        yield f"    ssl_certificate_key {site.tls.key};"
        yield "    ssl_protocols TLSv1.2 TLSv1.3;"


def _server(site: BootSite) -> Iterator[str]:
    yield f"root {site.provision};"
    yield "server_tokens off;"
    yield "autoindex off;"
    yield "disable_symlinks on from=$document_root;"
    yield "sendfile on;"
    yield "sendfile_max_chunk 512k;"  # one fast node does not keep a worker from the others
    yield "tcp_nopush on;"
    yield "default_type application/octet-stream;"
    yield "keepalive_timeout 30s;"
    yield "send_timeout 60s;"
    yield "limit_conn_status 503;"
    yield "limit_conn rackproof_source 16;"
    yield "error_page 503 @busy;"  # also of limit_conn
    yield "location @busy { add_header Retry-After 5 always; return 503; }"
    yield "location / { return 404; }"
    yield r"location ~ /\. { return 404; }"
    yield "location ^~ /boot/ipxe/ {"
    yield f"    alias {site.firmware}/;"
    yield "    disable_symlinks off;"  # Debian's ipxe.efi is a link to /boot
    yield "    limit_except GET { deny all; }"
    yield "}"
    yield from _decided(r"location ~ \.ipxe$", "4k")
    yield from _decided("location ^~ /report/", "16k")
    yield from _decided("location ^~ /log/", str(LOG_MAX_BYTES))
    for folder in (*_SERVED, "boot"):
        yield f"location /{folder}/ {{"
        yield from (f"    {line}" for line in _download(site))
        yield "}"


def _download(site: BootSite) -> Iterator[str]:
    yield "limit_except GET { deny all; }"
    if site.limits.connection_bytes_per_s:
        yield f"limit_rate {site.limits.connection_bytes_per_s};"
    if site.limits.connections:
        yield f"limit_conn rackproof_downloads {site.limits.connections};"
        yield "limit_conn rackproof_source 16;"  # naming one limit here drops those of the server


def _decided(location: str, most: str) -> Iterator[str]:
    yield f"{location} {{"
    yield "    proxy_pass http://rackproof_netboot;"
    yield f"    proxy_set_header {SOURCE_HEADER} $remote_addr;"
    yield '    proxy_set_header Connection "";'
    yield "    proxy_http_version 1.1;"
    yield "    proxy_next_upstream off;"  # a script that was taken is not asked for twice
    yield "    proxy_read_timeout 30s;"
    yield f"    client_max_body_size {most};"
    yield "    client_body_timeout 30s;"
    yield "}"
