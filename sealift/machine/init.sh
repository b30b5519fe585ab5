#!/bin/busybox sh
# First process of a VM: finds its disks, lays a writable root over the read-only one, applies what this VM was
# configured with (boot.py), brings its network up and hands over to systemd. All of it before udev and units:
# under emulation each process that systemd starts costs more than everything here.

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

/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755,nosuid,nodev run /run

while read -r module; do
    insmod "/modules/$module" || die "module $module does not load"
done </modules/order

root=$(disk sealift-root)
data=$(disk sealift-data)
configuration=$(disk sealift-config)
[ -n "$root" ] || die "no disk says that it is sealift-root"

mkdir -p /run/sealift/lower /run/sealift/upper /new
mount -t ext4 -o ro,noload "$root" /run/sealift/lower || die "$root does not mount"
mount -t tmpfs -o mode=0755 upper /run/sealift/upper
mkdir /run/sealift/upper/files /run/sealift/upper/work
mount -t overlay -o lowerdir=/run/sealift/lower,upperdir=/run/sealift/upper/files,workdir=/run/sealift/upper/work \
    root /new || die "the root overlay does not mount"

if [ -n "$data" ]; then
    mount -t ext4 -o noatime "$data" /new/data || die "$data does not mount"
    for folder in docker containerd sealift; do
        mkdir -p "/data/$folder" "/new/data/$folder" "/new/var/lib/$folder"
        mount --bind "/new/data/$folder" "/new/var/lib/$folder"
    done
fi

if [ -n "$configuration" ]; then
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
