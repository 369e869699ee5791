#!/bin/sh
# Turns a minimal Debian into the server of bench/streams. It runs in the chroot.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d # start no service here
chmod 755 /usr/sbin/policy-rc.d
mkdir -p /etc/initramfs-tools/conf.d
printf 'virtio_pci\nvirtio_blk\next4\n' > /etc/initramfs-tools/modules 2> /dev/null || true
echo MODULES=list > /etc/initramfs-tools/conf.d/longhaul
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold \
	linux-image-cloud-amd64 initramfs-tools systemd systemd-sysv dbus udev cron openssh-server redis-server nginx postgresql
apt-get clean
rm -f /usr/sbin/policy-rc.d /etc/ssh/ssh_host_* /var/lib/systemd/random-seed
echo '/dev/vda / ext4 defaults,noatime 0 1' > /etc/fstab
ln -sfn /usr/share/doc /var/www/html/doc
echo "log_statement = 'mod'" > /etc/postgresql/15/main/conf.d/longhaul.conf
ln -s ../longhaul-agent.service /etc/systemd/system/multi-user.target.wants/ # copied in later
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer
