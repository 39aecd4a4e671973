//! Real guests: a kernel with busybox, in qemu, by a test's own daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::shell;
use crate::rig::{Daemon, NAME, virsh};

/// Its first lines: what the kernel shows, and drivers.
const BEGIN: &str = "#!/busybox sh
/busybox mount -t devtmpfs d /dev
/busybox mount -t proc p /proc
/busybox mount -t sysfs s /sys
while read -r module; do /busybox insmod /$module; done </modules
for event in /dev/input/event*; do (/busybox head -c 24 $event >/dev/null; /busybox poweroff -f) & done
";

/// Does nothing but wait for its power button.
const LISTEN: &str = "echo listening >/dev/ttyS0\nwait\n";

/// Writes to its root all the time. By the agent's channel, which it must have, it freezes and thaws what it writes to, as
/// qemu's guest agent does.
const BUSY: &str = r#"
until [ -b /dev/vda3 ]; do /busybox usleep 10000; done
/busybox mount -t ext4 /dev/vda3 /mnt
until [ -c /dev/vport*p* ]; do /busybox usleep 10000; done
(
    exec 3<>$(echo /dev/vport*p*)
    echo "agent is there" >/dev/ttyS0
    # While nobody listens at the other end, there is nothing to read, as qemu's own agent knows.
    while :; do
      while read -r line <&3; do
        case $line in
          *guest-sync*) id=${line##*id\":}; echo "{\"return\": ${id%%\}*}}" >&3;;
          *fsfreeze-freeze*) /busybox fsfreeze --freeze /mnt; echo frozen >/dev/ttyS0; echo '{"return": 1}' >&3;;
          *fsfreeze-thaw*) /busybox fsfreeze --unfreeze /mnt; echo thawed >/dev/ttyS0; echo '{"return": 1}' >&3;;
        esac
      done
      /busybox usleep 100000
    done
) &
number=0
while :; do
  number=$((number + 1))
  echo "line $number" >>/mnt/var/busy
  /busybox sync
  echo "wrote $number" >/dev/ttyS0
done
"#;

/// What the kernel needs for that, beside what is built in.
const DRIVERS: &str = "virtio_pci virtio_blk ext4 virtio_console button evdev";

impl Daemon {
    /// Defines the guest's domain in qemu, starts it and waits until it listens: it powers off when the power button is pressed.
    /// Its disk is there, and left alone.
    pub(crate) fn start_listening(&self, kernel: &Path, disks: &str) {
        self.boot(kernel, LISTEN, disks);
        self.says("listening");
    }

    /// Starts one that writes to its root, and waits until it does.
    pub(crate) fn start_busy(&self, kernel: &Path, devices: &str) {
        self.boot(kernel, BUSY, devices);
        self.says("agent is there");
        self.says("wrote 5");
    }

    fn boot(&self, kernel: &Path, program: &str, devices: &str) {
        fs::copy(kernel, self.at("vmlinuz")).unwrap();
        fs::set_permissions(self.at("vmlinuz"), PermissionsExt::from_mode(0o644)).unwrap();
        let root = self.at("initrd");
        for folder in ["dev", "proc", "sys", "mnt"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("busybox")).unwrap();
        fs::write(root.join("init"), [BEGIN, program].concat()).unwrap();
        fs::set_permissions(root.join("init"), PermissionsExt::from_mode(0o755)).unwrap();
        shell(&format!(
            "cd {root}; modules={modules}; \
             modprobe -d $modules -S $(ls $modules/lib/modules) --show-depends -a {DRIVERS} | \
             sed -n 's/^insmod //p' | awk '!seen[$1]++ {{ print $1 }}' | \
             while read -r module; do cp $module .; echo $(basename $module .xz) >>modules; done; \
             find . -name '*.xz' -exec xz -d {{}} +; find . | cpio --quiet -o -H newc >../initrd.cpio",
            root = root.display(),
            modules = kernel.parent().unwrap().display(),
        ));
        let (kernel, initrd) = (self.at("vmlinuz"), self.at("initrd.cpio"));
        let os = format!(
            "</type><kernel>{}</kernel><initrd>{}</initrd><cmdline>console=ttyS0 quiet</cmdline>",
            kernel.display(),
            initrd.display()
        );
        let said = self.at("run/console");
        let console = format!("<serial type='file'><source path='{}'/></serial></devices>", said.display());
        let uri = self.qemu();
        let file = self.xml(&uri, NAME, devices);
        let xml = fs::read_to_string(&file).unwrap();
        fs::write(&file, xml.replace("</type>", &os).replace("</devices>", &console)).unwrap();
        virsh(&uri, &["define", file.to_str().unwrap()]);
        virsh(&uri, &["start", NAME]);
    }

    /// Waits until the guest says something.
    pub(crate) fn says(&self, words: &str) {
        let said = self.at("run/console");
        shell(&format!(
            "timeout 120 bash -c 'until grep -aqs \"{words}\" {}; do sleep 0.1; done'",
            said.display()
        ));
    }

    /// How often it said something.
    pub(crate) fn said(&self, words: &str) -> usize {
        let said = fs::read(self.at("run/console")).unwrap();
        String::from_utf8_lossy(&said).matches(words).count()
    }

    /// Waits until the guest, which is busy, has written something more.
    #[track_caller]
    pub(crate) fn goes_on(&self) {
        let before = self.said("wrote ");
        self.says(&format!("wrote {}", before + 3));
    }
}
