"""
Unpacks the images of a layout with umoci, one for each processor at a time: umoci-describe.py LAYOUT TAG... Says what is in each as JSON: a list of either umoci's
complaint or path (latin1, the top is "") -> facts. Hard links of one file have the first one's name.
"""
import hashlib, json, os, shutil, stat, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFCHR: "character", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo"}


def describe(top):
    found, first = {}, {}

    def visit(path, name):
        facts = os.lstat(path)
        kind = TYPES[stat.S_IFMT(facts.st_mode)]
        each = {"type": kind, "uid": facts.st_uid, "gid": facts.st_gid, "seconds": facts.st_mtime_ns // 10**9, "nanoseconds": facts.st_mtime_ns % 10**9}
        if kind != "symlink":
            each["mode"] = stat.S_IMODE(facts.st_mode)
        if kind == "file":
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            each.update(size=facts.st_size, sha256=digest.hexdigest())
        if kind == "symlink":
            each["target"] = os.readlink(path).decode("latin1")
        if kind in ("character", "block"):
            each["device"] = [os.major(facts.st_rdev), os.minor(facts.st_rdev)]
        each["xattrs"] = {os.fsencode(key).decode("latin1"): os.getxattr(path, key, follow_symlinks=False).hex() for key in sorted(os.listxattr(path, follow_symlinks=False))}
        if kind != "directory" and facts.st_nlink > 1:
            each["links"] = first.setdefault(facts.st_ino, name.decode("latin1"))
        found[name.decode("latin1")] = each
        if kind == "directory":
            for child in sorted(os.listdir(path)):
                visit(path + b"/" + child, name + b"/" + child if name else child)

    visit(os.fsencode(top), b"")
    return found


layout = sys.argv[1]


def unpack(tag):
    root = f"{layout}.{tag}"
    unpacked = subprocess.run(["umoci", "raw", "unpack", "--image", f"{layout}:{tag}", root], capture_output=True)
    result = unpacked.stderr.decode("utf-8", "replace").strip() if unpacked.returncode else describe(root)
    shutil.rmtree(root, ignore_errors=True)
    return result


with ThreadPoolExecutor(os.cpu_count()) as pool:
    json.dump(list(pool.map(unpack, sys.argv[2:])), sys.stdout)
