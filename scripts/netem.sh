#!/bin/sh
# Lose packets on purpose, to see retransmissions.
set -eu

usage() {
    cat <<'TEXT'
usage: netem.sh DEV LOSS [--netns NAME]     lose LOSS percent of the packets: 5, 0.5 or 5%
       netem.sh DEV clear [--netns NAME]    lose no more

Needs root. Uses the queueing discipline netem, which loses what DEV sends. Where the kernel has no
netem, or DEV has a queueing discipline that somebody chose, it uses an nftables rule, which loses
what arrives at DEV. On lo that is the same.
TEXT
}

fail() {
    echo "netem.sh: $1" >&2
    exit 1
}

usage_error() {
    echo "netem.sh: $1" >&2
    usage >&2
    exit 2
}

parse_arguments() {
    device='' loss='' netns=''
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) usage; exit 0 ;;
        --netns)
            [ $# -ge 2 ] || usage_error "--netns needs a name"
            netns=$2
            shift ;;
        -*) usage_error "unknown option $1" ;;
        *) add_word "$1" ;;
        esac
        shift
    done
    [ -n "$loss" ] || usage_error "a device and a loss (or clear) are needed"
}

add_word() {
    if [ -z "$device" ]; then device=$1
    elif [ -z "$loss" ]; then loss=${1%\%}
    else usage_error "too many arguments: $1"
    fi
}

# Prints the loss as parts of a million, for nftables.
millionths() {
    echo "$loss" | awk '
        !/^[0-9]+(\.[0-9]+)?$/ || $1 < 0.0001 || $1 > 100 { exit 1 }
        { printf "%d\n", $1 * 10000 + 0.5 }'
}

# Runs a command in the device's network namespace.
inside() {
    if [ -n "$netns" ]; then ip netns exec "$netns" "$@"; else "$@"; fi
}

find_device() {
    command -v ip >/dev/null || fail "ip is missing: install the package iproute2"
    [ "$(id -u)" -eq 0 ] || fail "this needs root: run it with sudo"
    [ -z "$netns" ] || inside true 2>/dev/null || fail "there is no network namespace $netns"
    found=$(inside ip -oneline link show dev "$device" 2>/dev/null) ||
        fail "there is no device $device${netns:+ in network namespace $netns}"
    table=tcprism_loss_${found%%:*}
}

# The kernel's own root qdiscs have handle 0: and may be replaced, one that somebody set may not.
foreign_qdisc() {
    inside tc qdisc show dev "$device" root 2>/dev/null |
        awk '$1 == "qdisc" && $2 != "netem" && $3 != "0:" { print $2 }'
}

lose_by_netem() {
    command -v tc >/dev/null || { echo "tc is missing"; return 1; }
    foreign=$(foreign_qdisc)
    [ -z "$foreign" ] || { echo "$device has a $foreign queue of its own"; return 1; }
    inside tc qdisc replace dev "$device" root netem loss "$loss%" 2>&1
}

# On arrival, as the sender's own TCP would notice a packet that is refused on its way out.
lose_by_nftables() {
    command -v nft >/dev/null || { echo "nft is missing"; return 1; }
    inside nft -f - 2>&1 <<TEXT
add table inet $table
delete table inet $table
table inet $table {
    chain arriving {
        type filter hook prerouting priority raw
        iifname "$device" numgen random mod 1000000 <= $(($(millionths) - 1)) drop
    }
}
TEXT
}

lose() {
    millionths >/dev/null || usage_error "$loss is not a percentage from 0.0001 to 100"
    find_device
    clear_loss
    if netem_says=$(lose_by_netem); then
        echo "$device loses $loss % of what it sends (netem)"
    elif nft_says=$(lose_by_nftables); then
        echo "$device loses $loss % of what arrives (nftables; no netem: $netem_says)"
    else
        fail "neither netem ($netem_says) nor nftables ($nft_says) works here"
    fi
}

has_netem() {
    command -v tc >/dev/null && inside tc qdisc show dev "$device" root | grep -q '^qdisc netem'
}

has_table() {
    command -v nft >/dev/null && inside nft list table inet "$table" >/dev/null 2>&1
}

# Sets what=, the means that was in use, if any.
clear_loss() {
    what=''
    if has_netem; then
        what=netem
        inside tc qdisc del dev "$device" root
    fi
    if has_table; then
        what=nftables
        inside nft delete table inet "$table"
    fi
}

main() {
    parse_arguments "$@"
    if [ "$loss" != clear ]; then
        lose
        return
    fi
    find_device
    clear_loss
    echo "$device loses no packets on purpose${what:+ any more ($what removed)}"
}

main "$@"
