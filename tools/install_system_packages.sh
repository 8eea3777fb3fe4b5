#!/bin/sh
# Install the system packages that are missing: install_system_packages.sh [run] [test]
# Needs apt and root or sudo; elsewhere it names the packages and goes on.
set -eu

python=${PYTHON:-python3}

packages_for_run() {
    echo libbpf1 iproute2 nftables
    # Debian and Ubuntu split venv's pip off Python; other Pythons have it built in.
    "$python" -c 'import ensurepip' 2>/dev/null ||
        "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' || true
}

packages_for_test() {
    echo binutils bpftool tcpdump tshark nginx-light apache2-utils nghttp2-client openssl libnss3-tools
    echo curl wget sudo haproxy nodejs postgresql mariadb-server-core mariadb-client-core
    echo prometheus chromium
    echo redis-server memcached dnsmasq-base bind9-dnsutils mosquitto mosquitto-clients nats-server
    echo rabbitmq-server
    echo cargo librust-rustls-dev
    echo qemu-system-x86 busybox-static kmod zstd xz-utils
}

missing_packages() {
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
            echo "$package"
    done
}

# Not every distribution has every package (Ubuntu has no bpftool): what is unknown is said.
known_packages() {
    for package in "$@"; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            echo "$package"
        else
            echo "tcprism: there is no package $package here; what needs it will say so" >&2
        fi
    done
}

wanted=$(for purpose in "$@"; do "packages_for_$purpose"; done)
if ! command -v apt-get >/dev/null; then
    echo "tcprism: no apt here; if something is missing, install: $(echo $wanted)" >&2
    exit 0
fi

missing=$(missing_packages $wanted)
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    echo "tcprism: as root, run: apt-get install $(echo $missing)" >&2
    exit 0
fi

echo "tcprism: installing the packages" $missing
$as_root apt-get -qq update
missing=$(known_packages $missing)
[ -z "$missing" ] || $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install --no-install-recommends $missing >/dev/null
