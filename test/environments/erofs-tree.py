"""Makes a small tree with all that an ordinary user may make (and devices, owners and attributes for root): erofs-tree.py DIRECTORY"""
import os, sys

top = sys.argv[1]
os.makedirs(top)
os.chdir(top)


def write(name, data, mode=0o644, when=1_600_000_000_123_456_789):
    with open(name, "wb") as file:
        file.write(data)
    os.chmod(name, mode)
    os.utime(name, ns=(when, when))


for name in ("bin", "empty", "many", "deep/a/b/c/d", "tmp"):
    os.makedirs(name)
os.chmod("tmp", 0o1777)
write("bin/sh", bytes(range(256)) * 1000, 0o755)
write("bin/su", b"su", 0o4755)
write("nothing", b"", 0o600)
write("block", b"b" * 4096)
write("almost", b"a" * 4095)
write("old", b"old", when=5_000_000_000)
write(b"odd \xff\xfe name\n", b"odd")
write("n" * 90, b"long")
os.link("bin/sh", "bin/bash")
os.link("bin/sh", "deep/a/dash")
os.symlink("bin/sh", "sh")
os.symlink("t" * 95, "far")
os.mkfifo("pipe", 0o640)
for index in range(500):
    write(f"many/{index:03d}", b"%d" % index)
with open("sparse", "wb") as file:
    for at in (0, 1_000_000, 1_200_000, 7_000_000):
        file.seek(at)
        file.write(b"data" * 3000)
    file.truncate(9_000_001)
with open("holes", "wb") as file:
    for at in range(40):
        file.seek(at * 65536 + 8192)
        file.write(b"%04d" % at)
with open("void", "wb") as file:
    file.truncate(3_000_000)
if os.geteuid() == 0:
    os.mknod("tty", 0o020620, os.makedev(4, 5))
    os.mknod("disk", 0o060660, os.makedev(8, 17))
    os.chown("empty", 70_000, 80_000)
    os.setxattr("bin/su", "security.capability", bytes.fromhex("0100000200240000000000000000000000000000"))
    os.setxattr("deep", "trusted.note", b"\x00\xff\n")
try:
    os.setxattr("block", "user.binary", bytes(range(256)))
    os.setxattr("almost", "system.posix_acl_access", bytes.fromhex("0200000001000600ffffffff0200040031d4000004000400ffffffff10000400ffffffff20000000ffffffff"))
except OSError as error:
    print("no attributes here:", error, file=sys.stderr)
