#!/bin/busybox sh
# shellcheck shell=dash # the shell of busybox is an ash, as dash is; shellcheck knows it by name from 0.10 on
# First process of a VM: finds its disks, lays a writable root over the read-only one, applies what this VM was
# configured with (boot.py), brings its network up and hands over to systemd. All of it before udev and units:
# under emulation each process that systemd starts costs more than everything here.
#
# A measured VM (sealift.root= on its command line) believes only what is measured: it reads its root through
# dm-verity, takes nothing but addresses and a name from its configuration, which the provider wrote, and leaves its
# data disk alone: that one is opened when the owner has sent the key.

die() {
    echo "sealift init: $1" >/dev/console
    echo o >/proc/sysrq-trigger
    sleep 60
}

disk() { # the virtio disk with this serial number
    for found in /sys/block/vd*; do
        read -r serial <"$found/serial" # no line end there: never mind the status
        [ "$serial" = "$1" ] && echo "/dev/${found##*/}" && return
    done
}

bring_up() { # MAC ADDRESS/PREFIX GATEWAY|-
    for interface in /sys/class/net/*; do
        read -r mac <"$interface/address"
        [ "$mac" = "$1" ] || continue
        ip address add "$2" dev "${interface##*/}"
        ip link set "${interface##*/}" up
        [ "$3" = - ] || ip route add default via "$3"
    done
}

parameter() { # the value of a word of the kernel's command line
    # shellcheck disable=SC2013 # one line of words
    for word in $(cat /proc/cmdline); do
        case $word in "$1"=*) echo "${word#*=}" && return ;; esac
    done
}

verified() { # DISK ROOT-HASH,SALT,DATA-BLOCKS: a device that is read through dm-verity; blocks have 4096 bytes
    hash=${2%%,*} blocks=${2##*,} salt=${2#*,}
    salt=${salt%,*}
    table="0 $((blocks * 8)) verity 1 $1 $1 4096 4096 $blocks $blocks sha256 $hash $salt 1 panic_on_corruption"
    DM_DISABLE_UDEV=1 dmsetup create sealift-root --readonly --table "$table" >&2 || return
    # Few large reads: each request costs more than the hashes of its blocks.
    for device in /sys/block/dm-*; do
        echo 1024 >"$device/queue/read_ahead_kb"
    done
    echo /dev/mapper/sealift-root
}

few_lines() { # PATTERN: standard input, if it is 1 to 8 lines that are all as the pattern says, in 1 KiB
    lines=$(head -c 1024)
    [ -n "$lines" ] && [ "$(echo "$lines" | wc -l)" -le 8 ] || return 1
    echo "$lines" | grep -Exqv "$1" && return 1
    echo "$lines"
}

octets='([0-9]{1,3}\.){3}[0-9]{1,3}'
network_line="([0-9a-f]{2}:){5}[0-9a-f]{2} $octets/[0-9]{1,2} (-|$octets)"
name_line='[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?'

configured() { # FILE PATTERN: a file of the configuration
    tar -x -O -f "$configuration" "$1" 2>/dev/null | few_lines "$2" || die "the configuration's $1 is none"
}

own_tables() { # FOLDER OWN: whether the kernel has the image's ACPI tables (acpi.py), and no other
    for table in "$1"/* "$1"/dynamic/*; do
        case ${table#"$1"/} in
        APIC | DSDT | FACP | FACS | data | dynamic | 'dynamic/*') ;;
        *) return 1 ;;
        esac
    done
    cmp -s "$1/DSDT" "$2"
}

apply_measured() { # what a measured VM is made of, below /new
    mkdir -p /new/etc/sealift /new/root/.ssh
    if [ -n "$configuration" ]; then
        configured etc/sealift/network "$network_line" >/new/etc/sealift/network
        configured etc/hostname "$name_line" | head -n 1 >/new/etc/hostname
    fi
    read -r name </new/etc/hostname
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >/new/etc/hosts
    tr -d - </proc/sys/kernel/random/uuid >/new/etc/machine-id
    owner=$(parameter sealift.owner)
    echo "${owner%%,*} ${owner#*,}" >/new/root/.ssh/authorized_keys
    chmod 700 /new/root /new/root/.ssh
    chmod 600 /new/root/.ssh/authorized_keys
}

seal() { # no memory of a process in a file, no orders by the console, no other kernel
    echo '|/bin/false' >/proc/sys/kernel/core_pattern
    echo 0 >/proc/sys/fs/suid_dumpable
    echo 0 >/proc/sys/kernel/sysrq
    echo 1 >/proc/sys/kernel/kexec_load_disabled
}

[ $$ = 1 ] || return 0 # a test reads the functions only
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755,nosuid,nodev run /run

while read -r module; do
    insmod "/modules/$module" || die "module $module does not load"
done </modules/order

measured=$(parameter sealift.root)
if [ -n "$measured" ]; then # before it asks for anything else: the loader has seen to it, unless a firmware undid that
    own_tables /sys/firmware/acpi/tables /acpi/DSDT || die "the kernel has ACPI tables that are not the image's"
fi

root=$(disk sealift-root)
data=$(disk sealift-data)
configuration=$(disk sealift-config)
[ -n "$root" ] || die "no disk says that it is sealift-root"

if [ -n "$measured" ]; then
    root=$(verified "$root" "$measured") || die "the root cannot be read as a verified one"
fi
mkdir -p /run/sealift/lower /run/sealift/upper /new
mount -t ext4 -o ro,noload "$root" /run/sealift/lower || die "$root does not mount"
mount -t tmpfs -o mode=0755 upper /run/sealift/upper
mkdir /run/sealift/upper/files /run/sealift/upper/work
mount -t overlay -o lowerdir=/run/sealift/lower,upperdir=/run/sealift/upper/files,workdir=/run/sealift/upper/work \
    root /new || die "the root overlay does not mount"

if [ -n "$data" ] && [ -z "$measured" ]; then
    mount -t ext4 -o noatime "$data" /new/data || die "$data does not mount"
    for folder in docker containerd sealift; do
        mkdir -p "/data/$folder" "/new/data/$folder" "/new/var/lib/$folder"
        mount --bind "/new/data/$folder" "/new/var/lib/$folder"
    done
fi

if [ -n "$measured" ]; then
    apply_measured
elif [ -n "$configuration" ]; then
    tar -x -o -C /new -f "$configuration" || die "the configuration cannot be read"
fi
ip link set lo up
if [ -f /new/etc/sealift/network ]; then
    while read -r mac address gateway; do
        bring_up "$mac" "$address" "$gateway"
    done </new/etc/sealift/network
fi
[ -f /new/etc/hostname ] && hostname -F /new/etc/hostname
for variables in /new/usr/lib/sysctl.d/*.conf /new/etc/sysctl.d/*.conf; do
    [ -f "$variables" ] && sysctl -q -p "$variables" >/dev/null 2>&1
done
[ -n "$measured" ] && seal
mkdir -p /run/lock /run/log /run/user
chmod 1777 /run/lock

# Nodes whose opening loads their module: /dev/net/tun and the like. Each line: module, node, type MAJOR:MINOR.
while read -r module node number; do
    case $module in \#*) continue ;; esac
    [ -e "/dev/$node" ] && continue
    mkdir -p "$(dirname "/dev/$node")"
    minor=${number#*:} major=${number%:*}
    mknod -m 600 "/dev/$node" "${major%%[0-9]*}" "${major#[bc]}" "$minor"
done <"/new/usr/lib/modules/$(uname -r)/modules.devname"

mount --move /dev /new/dev
mount --move /run /new/run
umount /sys
umount /proc
exec switch_root /new /sbin/init
