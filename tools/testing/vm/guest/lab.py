# SPDX-License-Identifier: GPL-2.0
"""What runs in L1: devices to assign, a Linux guest (L2) in our QEMU, its peer.

The guest's only program is "init" of this directory; commands go to it by its
second serial line. It tells checksums; whether they are right is found out here,
from the other end of each device.
"""

import hashlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[4]
QEMU = TOP / "build/qemu/bin/qemu-system-x86_64"
IMAGES = TOP / "build/guest"
PCI = pathlib.Path("/sys/bus/pci")
DEBUGFS = pathlib.Path("/sys/kernel/debug/vtd_shadow")
DRIVER = "vtd_shadow"
PEER, GUEST = "192.0.2.1", "192.0.2.2"  # for documentation: RFC 5737
COMPLAINT = re.compile(r"\] WARNING: CPU|BUG:|Oops|Call Trace|DMAR: .*[Ff]ault |AMD-Vi: Event logged|I/O error"
                       r"|nvme.* (timeout|reset)|Detected Hardware Unit Hang|NETDEV WATCHDOG")
MIB = 1 << 20
PAGE = 4096


class Failure(Exception):
    """Something was not as it must be."""


def expect(what, is_so):
    if not is_so:
        raise Failure(what)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def modprobe(*modules):
    subprocess.run(["modprobe", "-a", *modules], check=True)


class Device:
    """A PCI device of L1 that is to be assigned."""

    def __init__(self, pci_id):
        for self.dir in (PCI / "devices").iterdir():
            if self.read("vendor") + self.read("device") == pci_id:
                self.address = self.dir.name
                return
        raise Failure(f"L1 has no PCI device {pci_id}")

    def read(self, attribute):
        return (self.dir / attribute).read_text().strip()

    def bind(self, driver):
        """Take the device from the driver that it has, and give it to another."""
        (self.dir / "driver_override").write_text(driver)
        if (self.dir / "driver").exists():
            (self.dir / "driver/unbind").write_text(self.address)
        (PCI / "drivers_probe").write_text(self.address)
        expect(f"{driver} does not take {self.address}",
               (self.dir / "driver").resolve().name == driver)


def devices():
    """The NVMe disk and the e1000e."""
    return [Device("0x1b360x0010"), Device("0x80860x10d3")]


class Disk:
    """The file behind the NVMe disk: its first half is never written to."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.written = self.path.stat().st_size // 2

    def sha256(self, first, count):
        """Checksum of a range of bytes, as L0 has it."""
        with self.path.open("rb") as file:
            file.seek(first)
            return sha256(file.read(count))


class Peer:
    """The other end of the assigned NIC's wire: L1's virtio NIC."""

    def __init__(self):
        modprobe("virtio_net")
        nic = next(path.name for path in pathlib.Path("/sys/class/net").iterdir()
                   if (path / "device/driver").resolve().name == "virtio_net")
        subprocess.run(["ip", "addr", "add", f"{PEER}/24", "dev", nic], check=True)
        subprocess.run(["ip", "link", "set", nic, "up"], check=True)
        self.listener = socket.create_server((PEER, 0))
        self.port = self.listener.getsockname()[1]

    def serve(self, handle):
        """Handle one connection in the background. Returns a function that waits
        for handle's result."""
        results = []

        def run():
            with self.listener.accept()[0] as connection:
                results.append(handle(connection))

        def wait():
            thread.join(30)
            expect("the peer of the guest's NIC saw no whole connection", results)
            return results[0]

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return wait

    @staticmethod
    def receive(connection):
        data = bytearray()
        while chunk := connection.recv(MIB):
            data += chunk
        return data


class Guest:
    """A QEMU process, and the Linux guest in it."""

    def __init__(self, out, name, assigned=(), kernel="6.1", append="", cpus=1,
                 viommu="intel", iommu="shadow=on", command=None):
        """Start it. Logs go to out/name.*; append: more of its command line; command:
        QEMU and the machine, instead of what assigned, cpus, viommu, iommu say."""
        self.out, self.name = pathlib.Path(out), name
        # Serial output to a file that is not local takes a millisecond a byte.
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.console = self.dir / "console"
        self.said = b""
        command = command or self.machine(assigned, cpus, viommu, iommu)
        command = [
            *command, "-nodefaults", "-no-user-config", "-display", "none",
            "-kernel", IMAGES / kernel / "vmlinuz", "-initrd", IMAGES / f"initrd-{kernel}",
            "-append", f"console=ttyS0 nokaslr intel_iommu=on {append}",
            "-serial", f"file:{self.console}",
            "-serial", f"unix:{self.dir}/port,server=on,wait=off"]
        with (self.dir / "qemu").open("wb") as output:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                            stderr=subprocess.STDOUT)
        self.port = None

    @staticmethod
    def machine(assigned, cpus, viommu, iommu):
        # Not XSAVE: Linux 6.1 prints a long warning about how TCG's looks.
        command = [QEMU, "-accel", "kvm", "-cpu", "host,-xsave",
                   "-M", "q35,kernel-irqchip=split", "-smp", str(cpus), "-m", "512M",
                   "-device", f"{viommu}-iommu,intremap=on,{iommu}"]
        for device in assigned:
            command += ["-device", f"vfio-pci,host={device.address}"]
        return command

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for file in "qemu", "console":
            if (self.dir / file).exists():
                shutil.copyfile(self.dir / file, self.out / f"{self.name}.{file}")
        shutil.rmtree(self.dir)

    def messages(self):
        """What QEMU itself has to say."""
        return (self.dir / "qemu").read_text(errors="replace").strip()

    def end(self, seconds=30):
        """Wait for QEMU's end; returns its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"QEMU goes on for {seconds} s") from None

    def connect(self):
        self.port = socket.socket(socket.AF_UNIX)
        while True:
            try:
                return self.port.connect(f"{self.dir}/port")
            except OSError:
                expect(f"QEMU ended: {self.messages()}", self.process.poll() is None)
                time.sleep(0.1)

    def line(self, deadline):
        """The next line that the guest says."""
        while b"\n" not in self.said:
            self.port.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.port.recv(PAGE)
            except OSError as error:
                raise Failure(f"nothing from the guest: {error}; its console ends with:\n"
                              + "\n".join(self.console_lines()[-80:])) from None
            expect(f"QEMU ended: {self.messages()}", data)
            self.said += data
        line, self.said = self.said.split(b"\n", 1)
        return line.decode(errors="replace").strip()

    def console_lines(self):
        """The kernel's log, whole lines."""
        if not self.console.exists():
            return []
        text = self.console.read_text(errors="replace")
        return [line.strip() for line in text.split("\n")[:-1]]

    def complaints(self):
        """Lines of the kernel's log that a guest with healthy devices does not have."""
        return [line for line in self.console_lines() if COMPLAINT.search(line)]

    def wait_ready(self, seconds=200):
        """Wait until the guest has booted and found its devices."""
        if not self.port:
            self.connect()
        deadline = time.monotonic() + seconds
        while (line := self.line(deadline)) != "ready":
            expect(f"guest: {line}", not line.startswith("error"))

    def send(self, *words):
        try:
            self.port.sendall(" ".join(map(str, words)).encode() + b"\n")
        except OSError as error:
            raise Failure(f"nothing can be sent to the guest: {error}") from None

    def ask(self, *words, seconds=150):
        """Let the guest carry out a command; returns its answer as a dictionary."""
        self.send(*words)
        deadline = time.monotonic() + seconds
        answer = {}
        while (line := self.line(deadline)).split()[0] != "end":
            expect(f"the guest started anew by itself during {words[0]}", line != "ready")
            key, _, answer[key] = line.partition(" ")
        expect(f"guest: {words[0]}: {line}", line == "end 0")
        return answer

    # What the module knows of this guest's vIOMMU

    def debugfs(self, name):
        contexts = list(DEBUGFS.glob(f"{self.process.pid}-*"))
        expect(f"QEMU has {len(contexts)} contexts of the module", len(contexts) == 1)
        return (contexts[0] / name).read_text()

    def stats(self):
        return {name: int(value) for name, value in
                map(str.split, self.debugfs("stats").splitlines())}

    def states(self):
        """The states of the endpoints."""
        return re.findall(r"state=(\w+)", self.debugfs("endpoints"))

    # Traffic; each checks the bytes and returns how many it checked

    def disk_read(self, disk, first, count):
        """Read MiB of the part that L0 has filled."""
        answer = self.ask("disk_read", MIB, first, count)
        expect("bytes read from the NVMe disk differ",
               answer["sha"] == disk.sha256(first * MIB, count * MIB))
        return count * MIB

    def disk_write(self, disk, first, count):
        """Write MiB in the other part, and read them back."""
        offset = disk.written + first * MIB
        answer = self.ask("disk_write", MIB, offset // MIB, count)
        expect("bytes written to the NVMe disk differ when read back",
               answer["back"] == answer["sha"])
        expect("bytes written to the NVMe disk have not arrived in L0",
               answer["sha"] == disk.sha256(offset, count * MIB))
        return count * MIB

    def net_up(self):
        self.ask("net_up", GUEST)

    def net_get(self, peer, count):
        data = os.urandom(count * MIB)
        wait = peer.serve(lambda connection: connection.sendall(data))
        answer = self.ask("net_get", PEER, peer.port)
        wait()
        expect("bytes received by the NIC differ", answer["sha"] == sha256(data))
        return count * MIB

    def net_put(self, peer, count):
        wait = peer.serve(peer.receive)
        answer = self.ask("net_put", PEER, peer.port, count)
        data = wait()
        expect("bytes sent by the NIC differ",
               len(data) == count * MIB and answer["sha"] == sha256(data))
        return count * MIB
