# Makes the mount namespace it runs in a host of its own. Everything that a test
# changes or that the daemon marks is fresh; see main.rs.
#
# usage: sh -eu setup.sh PROGRAM TOOLS DISK    (DISK may be empty: memory then)

program=$1 tools=$2 disk=$3

mount -t tmpfs -o mode=755 it-run /run
mkdir -p /run/it/bin /run/it/tools /run/it/etc /run/it/disk /run/lock
touch /run/it/bin/ssh-keywatch
mount --bind "$program" /run/it/bin/ssh-keywatch
mount --bind "$tools" /run/it/tools
[ -z "$disk" ] || mount --bind "$disk" /run/it/disk

mount -t tmpfs -o mode=755 it-etc /run/it/etc
cp -a /etc/. /run/it/etc/
rm -rf /run/it/etc/ssh /run/it/etc/ssh-keywatch
mount --bind /run/it/etc /etc
[ -s /etc/machine-id ] || echo 0123456789abcdef0123456789abcdef > /etc/machine-id
printf 'passwd: files\ngroup: files\nhosts: files\n' > /etc/nsswitch.conf

for directory in /srv /var/lib /var/log; do
    mount -t tmpfs -o mode=755 it "$directory"
done
for directory in /home /root /etc/ssh; do
    mkdir -p "$directory"
    if [ -n "$disk" ]; then
        mkdir -p "/run/it/disk$directory"
        mount --bind "/run/it/disk$directory" "$directory"
    else
        mount -t tmpfs -o mode=755 it "$directory"
    fi
done
chmod 700 /root

for tool in ssh-keygen ssh-copy-id ssh-add; do
    [ -e "/usr/bin/$tool" ] || continue
    cp "/usr/bin/$tool" /run/it/bin/
    mount --bind "/run/it/bin/$tool" "/usr/bin/$tool"
done

# Accounts of the machine must not get in the way of the test's.
sed -i -E '/^(ann|bob|eve):/d; /^[^:]*:[^:]*:(400[0-9]|5[0-9]{3}):/d' /etc/passwd /etc/group
uid=4001
for user in ann bob; do
    echo "$user:x:$uid:$uid:$user:/home/$user:/bin/sh" >> /etc/passwd
    echo "$user:x:$uid:" >> /etc/group
    mkdir -m 755 "/home/$user"
    chown "$uid:$uid" "/home/$user"
    uid=$((uid + 1))
done
